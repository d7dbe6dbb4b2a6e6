"""One stage as a process: `python -m launch.run.stage_process NAME RUN.json`.

It logs to standard error, which the supervisor points at the log file of the stage; a file that is long makes
room for the next one.
"""

import argparse
import faulthandler
import importlib
import logging
import os
import sys
from io import TextIOWrapper
from pathlib import Path

from launch.child_process import (
    REFUSAL,
    REFUSED,
    BoundedFile,
    die_with,
    ends_by_parent_alone,
    keep_freed_memory,
)
from launch.config.run_file import ResolvedRun
from stream.atomic import DiskFullError
from stream.stages.link import Link, NoticeHandler
from stream.stages.loop import StageRefusedError, run_stage
from stream.stages.refusals import in_words
from stream.stages.stage import Stage
from stream.wire.sockets import EndpointError

LOG_BYTES = 16 << 20  # of each of its two files


def main(arguments: list[str] | None = None) -> int:
    """Runs one stage until it is told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.run.stage_process", description=__doc__)
    parser.add_argument("stage", help="name of the stage, as in the run file")
    parser.add_argument("run", type=Path, help="run file, as written by the supervisor")
    parser.add_argument("--parent", type=int, help="process id of the supervisor: the stage dies with it")
    options = parser.parse_args(arguments)
    if options.parent:
        die_with(options.parent)
    ends_by_parent_alone()
    keep_freed_memory()
    run = ResolvedRun.read(options.run)
    log_to(run.logs / f"{options.stage}.log")
    try:
        run_stage(options.stage, lambda: build(run, options.stage), run.context(), on_link=_show_warnings)
    except (StageRefusedError, EndpointError, DiskFullError) as error:
        print(f"{REFUSAL}{in_words(error)}", file=sys.stderr)  # the supervisor shows it
        return REFUSED
    return 0


def build(run: ResolvedRun, name: str) -> Stage:
    """Returns the stage `name` of `run`, made by its builder."""
    spec = run.stage(name)
    os.nice(spec.nice)
    module, _, function = spec.builder.partition(":")
    stage: Stage = getattr(importlib.import_module(module), function)(run.on(spec.device))
    os.nice(spec.nice_when_ready)
    return stage


class _StageLog(BoundedFile):
    """A stage's log file, where all that the process prints goes as well, also when the file begins anew."""

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        for output in (sys.stdout, sys.stderr):
            output.flush()
            os.dup2(stream.fileno(), output.fileno())
        return stream


def log_to(file: Path) -> None:
    """Logs to standard error; where that is `file`, it does not grow without end."""
    faulthandler.enable()
    is_file = file.exists() and os.path.samestat(file.stat(), os.fstat(sys.stderr.fileno()))
    handler = _StageLog(file, LOG_BYTES, 1) if is_file else logging.StreamHandler()
    form = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=[handler])


def _show_warnings(link: Link) -> None:
    logging.getLogger().addHandler(NoticeHandler(link))


if __name__ == "__main__":
    sys.exit(main())
