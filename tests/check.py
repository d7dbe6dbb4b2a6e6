"""Everything a change has to pass, in one command: `python -m tests.check [--all]`.

The same command runs in CI. All checks run even when one fails; the end names those that did.
"""

import argparse
import subprocess
import sys

from tests.audit import NOT_DONE
from tests.lock import ROOT

CHECKS = {
    "format": ["-m", "ruff", "format", "--check", "."],
    "lint": ["-m", "ruff", "check", "."],
    "types": ["-m", "mypy"],
    "imports": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
    # Warnings are errors: a link that leads nowhere, a reference to what is gone.
    "documentation": ["-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build"],
    "tests": ["-m", "pytest", "-q", "-n", "2"],
}
# A slow test may wait for its turn on a core; where it must not, it is marked `alone`.
SLOW = ["-m", "pytest", "-q", "--timeout", "300", "--durations", "20", "-m"]
SLOW_CHECKS = {
    "holes in dependencies": ["-m", "tests.audit"],
    "slow tests": [*SLOW, "slow and not alone and not cuda", "-n", "2"],
    "tests alone": [*SLOW, "alone and not cuda"],
}


def main() -> int:
    """Runs all checks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.check", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also holes in dependencies and the slow tests")
    options = parser.parse_args()
    failed, not_done = [], []
    for name, arguments in (CHECKS | (SLOW_CHECKS if options.all else {})).items():
        print(f"--- {name}", flush=True)
        status = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode
        if status == NOT_DONE:
            not_done.append(name)
        elif status:
            failed.append(name)
    passed = "all checks passed that were done" if not_done else "all checks passed"
    print(f"failed: {', '.join(failed)}" if failed else passed)
    if not_done:
        print(f"NOT DONE: {', '.join(not_done)}; the reason stands above")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
