"""How a run begins and ends for the person beside it.

What it waits for is shown, each address is said when something answers there, and the page stays while
somebody looks at it.
"""

import logging
import webbrowser
from contextlib import suppress

from rich.console import Console

from launch.page import BROWSERS
from launch.run.progress import ProgressLine
from launch.run.supervisor import Supervisor

BROWSERS_GONE_S = 3.0  # a page that is loaded again is away for a moment
# of a stage: what a person calls its address, and does with it
_DOORS = {
    "viewer": "live page   {}",
    "stitcher": "live image  ptychostream watch {}",
    "policy": "steering    ptychostream steer {}",
}


def start(
    supervisor: Supervisor,
    console: Console,
    line: ProgressLine,
    *,
    choice: str = "",
    opens_browser: bool = False,
) -> None:
    """Starts all stages and returns when each is ready for the first frame.

    Parameters
    ----------
    supervisor : Supervisor
    console : rich.console.Console
        Gets a line for each address once it answers.
    line : ProgressLine
        Shows which stages are still getting ready.
    choice : str
        Why the run takes another network than the configuration has first (`for_the_rate`), told first.
    opens_browser : bool
        Whether to show the page as soon as there is one.

    Raises
    ------
    RunFailedError
        If a stage cannot run or is not ready in time.
    """
    if choice:
        supervisor.notice("inference", logging.INFO, choice)
    unsaid = dict(_DOORS)

    def on_turn(waits_for: list[str]) -> None:
        for stage in [stage for stage in unsaid if supervisor.address(stage)]:
            console.print(unsaid.pop(stage).format(supervisor.address(stage)), soft_wrap=True)
            if stage == "viewer" and opens_browser:
                webbrowser.open(supervisor.address(stage))
        line.starting(waits_for)

    supervisor.start(on_turn=on_turn)


def stay(supervisor: Supervisor, console: Console) -> None:
    """Returns when no browser shows the page any longer, or after Ctrl-C."""

    def is_seen() -> bool:
        viewer = supervisor.progress.get("viewer")
        return viewer is not None and viewer.counts.get(BROWSERS, 0) > 0

    if not is_seen():
        return
    page = supervisor.address("viewer")
    console.print(f"{page} stays while a browser shows it; Ctrl-C ends it at once", soft_wrap=True)
    seen_at = supervisor.clock()
    with suppress(KeyboardInterrupt):
        while supervisor.clock() - seen_at < BROWSERS_GONE_S:
            if is_seen():
                seen_at = supervisor.clock()
            supervisor.poll()
