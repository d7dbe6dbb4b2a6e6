import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from launch.run.finish import finish, tell_reached
from launch.run.progress import ProgressLine


class Asked:
    """A supervisor that is asked to end, with what it is told to do on record."""

    def __init__(self, *, n_scans: int, has_started: bool, is_asked_again: bool = False) -> None:
        self.run = SimpleNamespace(scans=Path("/save/scans"), config=SimpleNamespace(save=Path("/save")))
        self.has_started, self._n_scans, self._is_asked_again = has_started, n_scans, is_asked_again
        self.told: list[str] = []
        self.log = SimpleNamespace(add=lambda source, level, text: self.noted.append(text))
        self.noted: list[str] = []

    def scans(self) -> list[object]:
        return [object()] * self._n_scans

    def start(self) -> None:
        self.told.append("start")

    def stop(self, on_turn: object) -> None:
        self.told.append("stop")
        if self._is_asked_again:
            raise KeyboardInterrupt


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.mark.parametrize(
    ("n_scans", "has_started", "told"),
    [(1, True, ["stop"]), (0, False, ["stop"]), (1, False, ["start", "stop"])],
)
def test_frames_that_came_while_it_still_started_are_finished_too(printed, n_scans, has_started, told):
    supervisor, console = Asked(n_scans=n_scans, has_started=has_started), Console(file=printed)
    finish(supervisor, console, ProgressLine(console))
    assert supervisor.told == told
    assert supervisor.noted == ["was asked to end: finishing what is recorded"]


def test_who_asks_twice_is_told_where_what_is_recorded_lies(printed):
    supervisor = Asked(n_scans=1, has_started=True, is_asked_again=True)
    console = Console(file=printed)
    with pytest.raises(KeyboardInterrupt):
        finish(supervisor, console, ProgressLine(console))
    assert printed.getvalue().endswith("stopped at once; what is recorded lies in /save/scans\n")


def test_a_run_without_a_frame_says_so(printed):
    tell_reached(Asked(n_scans=0, has_started=True), Console(file=printed))
    assert printed.getvalue() == "no frame came\n"
