"""Everything a change has to pass, in one command: `python -m tests.check [--all]`.

The same command runs in CI. All checks run even when one fails; the end names those that did.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

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
SLOW_TESTS = {
    "slow tests": [*SLOW, "slow and not alone and not cuda", "-n", "2"],
    "tests alone": [*SLOW, "alone and not cuda"],
}


def main() -> int:
    """Runs all checks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.check", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also the slow tests, as CI does")
    options = parser.parse_args()
    failed = []
    for name, arguments in (CHECKS | (SLOW_TESTS if options.all else {})).items():
        print(f"--- {name}", flush=True)
        if subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
