"""The command line. Each command says what it takes and hands over; what it does is elsewhere.

Imports are inside the commands: `--help` must not wait for PyTorch, and `watch` and `steer` run where the
pipeline is not installed. Users' mistakes end in one line on standard error and exit status 2;
PTYCHOSTREAM_DEBUG=1 shows where they were noticed.
"""

import os
import sys
from collections.abc import Sequence
from inspect import getdoc

from launch.cli import init, live, orient, reconstruct, replay, scans  # noqa: F401 -- their commands register themselves
from launch.cli.app import app
from launch.extras import missing_extra
from launch.signals import ends_on_signals, interruption_behind
from stream.stages.refusals import in_words

__all__ = ["app", "main"]

USER_MISTAKE = 2
INTERRUPTED = 130
DEBUG = "PTYCHOSTREAM_DEBUG"

for command in app.registered_commands:  # the list of commands would cut their first lines
    command.short_help = (getdoc(command.callback) or "").partition("\n\n")[0]


def main() -> None:
    """Runs the command line and leaves with its exit status."""
    try:
        _refuse_empty(sys.argv)
        with ends_on_signals():
            app()
    except SystemExit as end:  # of typer, to which all signals are Ctrl-C
        if interruption := interruption_behind(end):
            sys.exit(interruption.status)
        raise
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        if os.environ.get(DEBUG):
            raise
        print(f"ptychostream{_told(error)}", file=sys.stderr)
        sys.exit(USER_MISTAKE)


def _told(error: Exception) -> str:
    if isinstance(error, ImportError) and (extra := missing_extra(error)):
        return f" {sys.argv[1]}: {extra}"
    pydantic = sys.modules.get("pydantic")  # a client may run without
    if pydantic and isinstance(error, pydantic.ValidationError):
        from launch.config.reading import described

        return f": {described(error)}"
    return f": {in_words(error)}"


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise ValueError for an empty argument: mostly a variable of the shell that is not set."""
    if "" in arguments:
        before = arguments[arguments.index("") - 1]
        raise ValueError(f"what comes after {before} is empty: give it a value or leave it out")
