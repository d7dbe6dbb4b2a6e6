"""The `run` command: start the pipeline, show progress, finish what is recorded, say what became of it."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from launch.config.config import Config, config_hash
from launch.config.probe import Known
from launch.logs import RUN
from launch.results.summary import read_summary, write_summary
from launch.run.finish import finish, tell_reached
from launch.run.network_choice import for_the_rate
from launch.run.progress import ProgressLine, progress_on
from launch.run.readiness import warnings_of
from launch.run.stages import resolve
from launch.run.start import start
from launch.run.supervisor import Supervisor
from stream.record.scan import Scan

WARN_EVERY_S = 10.0


class SilenceWatch:
    """Notices that nothing has come from the detector since the run was ready.

    Parameters
    ----------
    address : str
        Of the detector, for the message.
    timeout_s : float
        Gives up after this; 0 waits for ever.
    warn : callable
        Gets the message every ten seconds.
    """

    def __init__(
        self,
        address: str,
        timeout_s: float,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address, self._timeout_s, self._warn, self._clock = address, timeout_s, warn, clock
        self._since = self._warned_at = clock()

    def look(self, scans: Sequence[Scan]) -> None:
        """Warns, or gives up, while there is no scan.

        Raises
        ------
        TimeoutError
            If nothing came for the time given.
        """
        if scans:
            return
        now = self._clock()
        if self._timeout_s and now - self._since >= self._timeout_s:
            raise TimeoutError(self.message())
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            self._warn(self.message())

    def message(self) -> str:
        """Returns what is wrong and what to do."""
        return (
            f"nothing from {self._address} for {self._clock() - self._since:.0f} s: is the detector armed? "
            "`ptychostream check` tries every address"
        )


def run(
    config: Config,
    *,
    n_series: int | None = None,
    resumes: bool = False,
    timeout_s: float = float("inf"),
    json_file: Path | None = None,
    opens_browser: bool = False,
    console: Console | None = None,
) -> int:
    """Runs the pipeline until `n_series` series are done or Ctrl-C; returns the exit status.

    Parameters
    ----------
    config : Config
    n_series : int, optional
        Without it the run goes on until it is asked to end, which finishes what is recorded. A scan that an
        earlier run has left without results is taken up, and counts.
    resumes : bool
        Whether to finish all that an earlier run has left, and end then. A series that is silent has ended.
    timeout_s : float, longest time to wait for the series
    json_file : Path, optional, gets the figures of the summary by name
    opens_browser : bool, whether to show the page
    console : rich.console.Console, optional

    Returns
    -------
    int
        0 if every frame of every series is in the picture, otherwise 1.

    Raises
    ------
    KeyboardInterrupt
        After the results are written, if it was asked to end before `n_series` were done; at once, if it was
        asked again.
    """
    console = console or Console()
    known = Known(config)
    warnings = warnings_of(known)
    config, choice = for_the_rate(config)
    resolved = resolve(config, known).model_copy(update={"resumes": resumes})
    interruption: KeyboardInterrupt | None = None
    line = progress_on(console)
    with line, Supervisor(resolved, on_notice=line.notice, on_event=line.event) as supervisor:
        if resumes and not supervisor.scans():
            return _nothing_to_resume(supervisor, console, json_file)
        for what, _, doubt in warnings:
            supervisor.notice(what, logging.WARNING, doubt)
        try:
            start(supervisor, console, line, choice=choice, opens_browser=opens_browser)
            n_wanted = 0 if resumes else sys.maxsize if n_series is None else n_series
            trouble = _follow(supervisor, console, line, n_wanted, timeout_s)
        except KeyboardInterrupt as error:
            trouble, interruption = "", error
            finish(supervisor, console, line)
        figures = _figures(supervisor)
    _tell_end(supervisor, console, figures, trouble, json_file)
    if interruption is not None and n_series is not None:
        raise interruption
    return 0 if figures["is_complete"] and not trouble else 1


def _nothing_to_resume(supervisor: Supervisor, console: Console, json_file: Path | None) -> int:
    save = supervisor.run.config.save
    console.print(f"nothing to resume: every scan in {save} has its results", soft_wrap=True)
    if json_file:
        write_summary(json_file, _figures(supervisor) | {"is_complete": True})
    return 0


def _tell_end(
    supervisor: Supervisor, console: Console, figures: dict[str, Any], trouble: str, json_file: Path | None
) -> None:
    tell_reached(supervisor, console)
    if trouble:
        print(trouble, file=sys.stderr)
    if json_file:
        write_summary(json_file, figures)


def _ready(supervisor: Supervisor) -> str:
    config = supervisor.run.config
    detector = supervisor.address("subscriber") or config.detector.where
    return f"ready for frames on {detector}; recording to {config.save}"


def _follow(
    supervisor: Supervisor, console: Console, line: ProgressLine, n_series: int, timeout_s: float
) -> str:
    """Wait for the series and end the run; return what went wrong, "" if nothing did."""
    console.print(_ready(supervisor), soft_wrap=True)
    detector = supervisor.run.config.detector
    watch = SilenceWatch(
        detector.where,
        detector.timeout_s,
        lambda text: supervisor.notice("subscriber", logging.WARNING, text),
    )

    def on_turn(scans: list[Scan]) -> None:
        watch.look(scans)
        line.show(scans, supervisor.state)

    trouble = ""
    try:
        supervisor.wait_for_series(n_series, timeout_s, on_turn)
    except TimeoutError as error:
        trouble = str(error) if supervisor.scans() else watch.message()
        supervisor.log.add(RUN, "error", trouble)
    supervisor.stop(on_turn=lambda scans: line.show(scans, supervisor.state))
    return trouble


def _figures(supervisor: Supervisor) -> dict[str, Any]:
    scans = [read_summary(supervisor.run.config.save, scan) for scan in supervisor.scans()]
    return {
        "run_id": supervisor.run.run_id,
        "config_hash": config_hash(supervisor.run.config),
        "restarts": supervisor.n_restarts,
        "is_complete": bool(scans) and all(scan["is_complete"] for scan in scans),
        "scans": scans,
    }
