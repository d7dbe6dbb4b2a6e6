"""How a run begins: what it waits for is shown, and each address is said when something answers there."""

import webbrowser

from rich.console import Console

from launch.run.progress import ProgressLine
from launch.run.supervisor import Supervisor

# of a stage: what a person calls its address, and does with it
_DOORS = {
    "viewer": "live page   {}",
    "stitcher": "live image  ptychostream watch {}",
    "policy": "steering    ptychostream steer {}",
}


def start(
    supervisor: Supervisor, console: Console, line: ProgressLine, *, opens_browser: bool = False
) -> None:
    """Starts all stages and returns when each is ready for the first frame.

    Parameters
    ----------
    supervisor : Supervisor
    console : rich.console.Console
        Gets a line for each address once it answers.
    line : ProgressLine
        Shows which stages are still getting ready.
    opens_browser : bool
        Whether to show the page as soon as there is one.

    Raises
    ------
    RunFailedError
        If a stage cannot run or is not ready in time.
    """
    unsaid = dict(_DOORS)

    def on_turn(waits_for: list[str]) -> None:
        for stage in [stage for stage in unsaid if supervisor.address(stage)]:
            console.print(unsaid.pop(stage).format(supervisor.address(stage)), soft_wrap=True)
            if stage == "viewer" and opens_browser:
                webbrowser.open(supervisor.address(stage))
        line.starting(waits_for)

    supervisor.start(on_turn=on_turn)
