"""What a person is told while a run begins, and how long the page stays at its end."""

import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from rich.console import Console

from launch.run.progress import ProgressLine
from launch.run.start import BROWSERS_GONE_S, start, stay
from tests.helpers.stream.clock import Clock

PAGE, IMAGE = "http://127.0.0.1:8010", "tcp://127.0.0.1:5557"


class Stages:
    """A supervisor whose stages become ready, and whose page is closed, turn by turn."""

    def __init__(self, *turns: dict[str, object]) -> None:
        self.clock, self._turns = Clock(), list(turns)
        self.addresses: dict[str, str] = {}
        self.progress: dict[str, SimpleNamespace] = {}

    def address(self, stage: str) -> str:
        return self.addresses.get(stage, "")

    def start(self, on_turn: Callable[[list[str]], None]) -> None:
        while self._turns:
            turn = self._turns.pop(0)
            self.clock.now += 1.5
            self.addresses |= turn.get("ready", {})
            on_turn(turn["waits_for"])

    def poll(self) -> None:
        self.clock.now += 1.0
        turn = self._turns.pop(0)
        if turn.get("interrupt"):
            raise KeyboardInterrupt
        self.shown_by(turn["browsers"])

    def shown_by(self, n_browsers: int) -> None:
        self.progress["viewer"] = SimpleNamespace(counts={"browsers": n_browsers})


def lines(text: io.StringIO) -> list[str]:
    return text.getvalue().splitlines()


def test_each_address_is_said_when_it_answers_and_what_is_waited_for_before_and_after():
    stages = Stages(
        {"waits_for": ["viewer", "stitcher", "inference"]},
        {"waits_for": ["stitcher", "inference"], "ready": {"viewer": PAGE}},
        {"waits_for": ["inference"], "ready": {"stitcher": IMAGE}},
        {"waits_for": []},
    )
    output = io.StringIO()
    console = Console(file=output, width=200)
    with ProgressLine(console, stages.clock) as line:
        start(stages, console, line)
    assert lines(output) == [
        "starting: viewer, stitcher, inference",
        f"live page   {PAGE}",
        "starting: stitcher, inference",
        f"live image  ptychostream watch {IMAGE}",
        "starting: inference",
        "ready",
    ]


def test_the_page_opens_when_it_answers(monkeypatch):
    stages = Stages({"waits_for": ["viewer"]}, {"waits_for": [], "ready": {"viewer": PAGE}})
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append((stages.clock.now, url)))
    console = Console(file=io.StringIO())
    began = stages.clock.now
    with ProgressLine(console, stages.clock) as line:
        start(stages, console, line, opens_browser=True)
    assert opened == [(began + 3.0, PAGE)]


def test_nobody_waits_for_a_page_that_no_browser_shows():
    output = io.StringIO()
    stages = Stages()
    stay(stages, Console(file=output))
    stages.shown_by(0)
    stay(stages, Console(file=output))
    assert output.getvalue() == ""


def test_the_page_stays_until_it_is_closed_though_it_may_be_loaded_again():
    gone = [{"browsers": 0}] * int(BROWSERS_GONE_S)
    stages = Stages({"browsers": 1}, {"browsers": 0}, {"browsers": 2}, *gone)
    stages.shown_by(1)
    stages.addresses["viewer"] = PAGE
    output = io.StringIO()
    stay(stages, Console(file=output, width=200))
    assert lines(output) == [f"{PAGE} stays while a browser shows it; Ctrl-C ends it at once"]
    with pytest.raises(IndexError):
        stages.poll()  # all turns were waited for


def test_ctrl_c_ends_a_page_that_is_shown():
    stages = Stages({"interrupt": True})
    stages.shown_by(1)
    output = io.StringIO()
    stay(stages, Console(file=output, width=200))
    assert "Ctrl-C ends it at once" in output.getvalue()
