"""One stage as a process: `python -m launch.run.stage_process NAME RUN.json`.

It logs to standard error, which the supervisor points at the stage's log file.
"""

import argparse
import faulthandler
import importlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Protocol, runtime_checkable

from launch.child_process import REFUSED, die_with
from launch.config.run_file import ResolvedRun
from stream.record.columns import DiskFullError
from stream.stages.link import Link, NoticeHandler, StageContext
from stream.stages.loop import Source, Worker, run_stage
from stream.wire.sockets import EndpointError


def main(arguments: list[str] | None = None) -> int:
    """Runs one stage until it is told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.run.stage_process", description=__doc__)
    parser.add_argument("stage", help="name of the stage, as in the run file")
    parser.add_argument("run", type=Path, help="run file, as written by the supervisor")
    parser.add_argument("--parent", type=int, help="process id of the supervisor: the stage dies with it")
    options = parser.parse_args(arguments)
    if options.parent:
        die_with(options.parent)
    # Ctrl-C reaches the whole terminal; the supervisor then stops its stages one after the other.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _log_to_stderr()
    run = ResolvedRun.read(options.run)
    try:
        stage = build(run, options.stage)
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)  # a mistake of the configuration; the supervisor shows this line
        return REFUSED
    try:
        if isinstance(stage, Service):
            run_service(stage, run.context())
        else:
            run_stage(stage, run.context(), on_link=_show_warnings)
    except (DiskFullError, EndpointError) as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


@runtime_checkable
class Service(Protocol):
    """A process of a run that handles no frames and has a loop of its own."""

    name: str

    def run(self, link: Link) -> None:
        """Says `link.ready`, works until `link.is_stopped`, and lets `link.wait` and `link.report` happen."""


def run_service(service: Service, context: StageContext) -> None:
    """Runs `service` until it is told to stop; blocks."""
    with Link(context, service.name) as link:
        link.greet()
        _show_warnings(link)
        service.run(link)


def build(run: ResolvedRun, name: str) -> Worker | Source | Service:
    """Returns the stage `name` of `run`, made by its builder."""
    spec = run.stage(name)
    os.nice(spec.nice)
    module, _, function = spec.builder.partition(":")
    stage: Worker | Source | Service = getattr(importlib.import_module(module), function)(run)
    return stage


def _log_to_stderr() -> None:
    faulthandler.enable()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def _show_warnings(link: Link) -> None:
    handler = NoticeHandler(link)
    owner = threading.get_ident()
    # A socket belongs to one thread: records of others stay in the log; `run_stage` reports its own failure.
    handler.addFilter(lambda record: record.thread == owner and record.exc_info is None)
    logging.getLogger().addHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
