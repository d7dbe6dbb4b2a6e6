"""How a run ends that somebody asked to end: what is recorded is finished, and where it lies is said."""

from typing import Any

from rich.console import Console

from launch.logs import RUN
from launch.results.summary import read_summary, show_summary
from launch.run.progress import ProgressLine
from launch.run.supervisor import Supervisor


def finish(supervisor: Supervisor, console: Console, line: ProgressLine) -> None:
    """Stops the sources and returns when the results of what is recorded are written.

    Raises
    ------
    KeyboardInterrupt
        If somebody asks again: it stops at once.
    """
    console.print("finishing what is recorded; Ctrl-C again stops at once")
    supervisor.log.add(RUN, "info", "was asked to end: finishing what is recorded")
    try:
        if supervisor.scans() and not supervisor.has_started:  # frames came while it still started
            supervisor.start()
        supervisor.stop(on_turn=lambda scans: line.show(scans, supervisor.state))
    except KeyboardInterrupt:
        console.print(f"stopped at once; what is recorded lies in {supervisor.run.scans}", soft_wrap=True)
        raise


def tell_reached(supervisor: Supervisor, console: Console) -> list[dict[str, Any]]:
    """Says what became of each scan of the run, and where it lies; returns their figures."""
    save, scans = supervisor.run.config.save, supervisor.scans()
    reached = [read_summary(save, scan) for scan in scans]
    for figures in reached:
        show_summary(figures, console)
    n_scans = "1 scan lies" if len(scans) == 1 else f"{len(scans)} scans lie"
    console.print(f"{n_scans} in {save}" if scans else "no frame came", soft_wrap=True)
    return reached
