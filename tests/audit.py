"""Looks for known holes in what the lock files name: `python -m tests.audit`.

Exits with 0 if there is none but those in `ACCEPTED`, with 1 if there is one, and with 75 if it could not
look: without its tool, or where the list of holes cannot be reached.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.lock import FOLDER, ROOT

NOT_DONE = 75  # as sysexits.h calls a failure that may be gone next time
ACCEPTED: dict[str, str] = {}  # names of holes, each with the reason why it does not concern us


def main() -> int:
    """Prints what was found; returns the exit status."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    command += ["--disable-pip", "--require-hashes"]
    command += [part for path in sorted(FOLDER.glob("*.txt")) for part in ("--requirement", str(path))]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        print(f"not done: {_last_line(done.stderr)}")
        return NOT_DONE
    return judged(report)


def judged(report: dict[str, Any]) -> int:
    """Prints the holes in a report of pip-audit, and what it left out; returns the exit status."""
    packages, holes = report["dependencies"], [*_holes(report)]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    new = [line for name, line in holes if name not in ACCEPTED]
    print(*new, sep="\n", end="\n" * bool(new))
    for name in ACCEPTED.keys() - {name for name, _ in holes}:
        print(f"{name} is gone: it need not be accepted any more")
    looked_at = f"{len(packages) - len(skipped)} of {len(packages)} packages looked at"
    print(f"{looked_at}, {len(new)} with a known hole, {len(holes) - len(new)} accepted")
    if skipped:
        print(f"not done: the index has no list of holes for {', '.join(skipped)}"[:300])
    if new:
        return 1
    return NOT_DONE if skipped or not packages else 0


def _holes(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for package in report["dependencies"]:
        for hole in package.get("vulns", ()):
            better = ", ".join(hole["fix_versions"]) or "none yet"
            what = f"{package['name']} {package['version']}: {hole['id']}, mended in {better}"
            yield hole["id"], what


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


if __name__ == "__main__":
    sys.exit(main())
