import os

from stream.record.run_state import (
    FILE_NAME,
    READ_INTERVAL_S,
    SILENT_S,
    ProcessState,
    StateReader,
    write_state,
)
from stream.wire.messages import RunState, StageState
from tests.helpers.stream.clock import Clock

ROWS = (StageState(name="detector", text="receiving", level="ok"),)
LIVE = RunState(scan="0000-star", level="live", text="live", stages=ROWS)


def written(folder, clock):
    write_state(folder, LIVE)
    os.utime(folder / FILE_NAME, (clock.now, clock.now))


def test_the_newest_state_is_read_from_the_disk_now_and_then(tmp_path):
    clock = Clock()
    read = StateReader(tmp_path, clock)
    assert read() is None
    written(tmp_path, clock)
    assert read() is None, "it was looked at a moment ago"
    clock.now += 2 * READ_INTERVAL_S
    assert read() == LIVE


def test_a_state_that_is_not_replaced_any_more_is_not_believed(tmp_path):
    clock = Clock()
    written(tmp_path, clock)
    clock.now += SILENT_S + 4
    state = StateReader(tmp_path, clock)()
    assert (state.level, state.scan) == ("stale", "0000-star")
    assert state.text == "nobody has looked after the run for 7 s: its supervisor does not work"


def test_the_processes_are_told_with_the_state_and_the_supervisor_is_one_of_them(tmp_path):
    inference = ProcessState(name="inference", pid=7, is_running=True, n_restarts=2, counts={"inferred": 5})
    read = StateReader(tmp_path)
    assert read.processes() == ()
    write_state(tmp_path, LIVE, [inference])
    told, supervisor = StateReader(tmp_path).processes()
    assert told == inference
    assert (supervisor.name, supervisor.pid, supervisor.is_running) == ("supervisor", os.getpid(), True)


def test_a_file_that_is_damaged_tells_nothing(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"\xff\x00")
    assert StateReader(tmp_path)() is None


def test_a_folder_that_is_gone_costs_the_state_and_nothing_else(tmp_path):
    write_state(tmp_path / "gone", LIVE)
    assert not (tmp_path / "gone").exists()
