"""A source that does not move any more is noticed at once, and so is that it moves again."""

import os
import signal
import time
from pathlib import Path

import pytest

from launch.run import processes
from launch.run.processes import StageProcess
from launch.run.supervisor import Supervisor
from stream.record.events import EventReader
from stream.stages.pulse import Pulse, PulseReader
from tests.helpers.launch.runs import make_run

PATIENCE_S = 20.0


def events_with(words: str, supervisor: Supervisor) -> list[float]:
    """When events with these words happened, Unix seconds; waits until there is one."""
    reader, deadline = EventReader(supervisor.run.folder), time.monotonic() + PATIENCE_S
    while not (found := [event.time_s for event in reader() if words in event.text]):
        assert time.monotonic() < deadline, f"nobody said: {words}"
        supervisor.poll()
    return found


def test_a_stopped_source_is_told_of_at_once_and_again_when_it_moves(
    run_folder: Path,
) -> None:
    notices: list[str] = []
    with Supervisor(
        make_run(run_folder, "sleeping", "second", is_source=True),
        on_notice=lambda stage, _, text: notices.append(f"{stage}: {text}"),
    ) as supervisor:
        supervisor.start()
        stopped_s = time.time()
        os.kill(supervisor.pid("second"), signal.SIGSTOP)
        alarm_s = events_with("does not move, stopped by a signal: what comes waits", supervisor)[0]
        rows = {row.name: row for row in supervisor.state.stages}
        assert (rows["second"].level, rows["second"].text[:13]) == ("warning", "does not move")
        assert supervisor.state.level == "stale"
        os.kill(supervisor.pid("second"), signal.SIGCONT)
        events_with("moves again after", supervisor)
        assert "second" not in {row.name for row in supervisor.state.stages if row.level == "warning"}
        (run_folder / "sleep").touch()
        events_with("does not move, waiting for another process", supervisor)
        assert [notice.split(",")[0] for notice in notices[:2:2]] == ["second: does not move"]
    assert alarm_s - stopped_s < 0.5  # on a busy computer


class Patient:
    """A process as its supervisor sees it, with a pulse and a state that tests choose."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make_run(folder, "second", is_source=True).model_copy(update={"rendezvous": folder})
        self.now, self.does = 100.0, "S"
        monkeypatch.setattr(processes, "process_state", lambda pid: self.does)
        self.process = StageProcess(run.stages[0], run, lambda: self.now)
        self.pulse = Pulse(folder, "second")
        self.process.ready()

    def after(self, *seconds: float) -> str:
        """What is told when so much time has passed since the last beat, with a look after each part."""
        self.pulse.beat(self.now, self.now)
        assert (self.process.feel_pulse() or (0, "moves again"))[1].startswith("moves again")
        told = []
        for part in seconds:
            self.now += part
            told.append(self.process.feel_pulse())
        return "".join(change[1] for change in told if change)


def test_one_that_is_at_work_or_waits_for_a_core_is_not_frozen(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Patient(run_folder, monkeypatch)
    assert it.after(0.05) == ""
    assert it.after(0.11, 0.06) == "does not move, waiting for another process: what comes waits"
    it = Patient(run_folder, monkeypatch)
    it.does = "R"
    assert it.after(0.9) == ""
    assert it.after(1.1) == "does not move, at one piece of work: what comes waits"


def test_one_that_had_no_core_and_rests_now_is_not_frozen(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Patient(run_folder, monkeypatch)
    for _ in range(3):
        it.does = "R"
        assert it.after(0.5) == ""
        it.does = "S"
        assert it.process.feel_pulse() is None
        it.now += 0.03
        assert it.process.feel_pulse() is None


def test_a_disk_that_is_slow_again_and_again_is_told_of_once(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Patient(run_folder, monkeypatch)
    it.does = "D"
    assert [it.after(0.3) != "" for _ in range(5)] == [True, False, False, False, False]
    assert it.after(1.2) == "does not move, waiting for the disk: what comes waits"
    it.after(0.0)
    it.now += 11.0
    assert it.after(0.3) != ""


def test_one_that_is_not_ready_or_ends_is_not_expected_to_move(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Patient(run_folder, monkeypatch)
    assert it.after(0.3, 0.1) != ""
    it.does = "Z"
    assert it.after(0.3, 1.1) == "", "it is dead"
    it.does = "S"
    it.process.is_stopping = True
    assert it.process.feel_pulse() is None
    it.process.is_stopping, it.process.is_ready = False, False
    assert it.process.feel_pulse() is None


def test_a_pulse_says_who_lives_and_until_when_all_is_dealt_with(run_folder: Path) -> None:
    reader = PulseReader(run_folder, "first")
    assert (reader.beat_at, reader.emptied_at, reader.is_alive()) == (0.0, 0.0, False)
    with Pulse(run_folder, "first") as pulse:
        pulse.beat(5.0, 4.0)
        pulse.beat(6.0, None)
        assert (reader.beat_at, reader.emptied_at, reader.is_alive()) == (6.0, 4.0, True)
    assert not reader.is_alive()
    with Pulse(run_folder, "first"):  # started again
        assert (reader.beat_at, reader.is_alive()) == (0.0, True)
