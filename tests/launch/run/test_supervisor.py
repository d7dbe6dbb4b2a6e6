import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.config.run_file import ResolvedRun
from launch.run.processes import RunFailedError
from launch.run.supervisor import Supervisor
from stream.record.handover import hand_over
from stream.record.run_state import StateReader, is_asked_to_end
from stream.record.scan import Scan, ScanHeader
from tests.helpers.launch.runs import make_run

PATIENCE_S = 20.0


def until(condition, supervisor: Supervisor) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        supervisor.poll()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_all_stages_are_ready_report_and_stop_in_order(run_folder):
    with Supervisor(make_run(run_folder, "third", "first", "second")) as supervisor:
        supervisor.start()
        until(lambda: len(supervisor.progress) == 3, supervisor)
        assert supervisor.progress["first"].counts["turns"] > 0
        rendezvous = supervisor.run.rendezvous
    assert (run_folder / "closed").read_text().split() == ["third", "first", "second"]
    assert not rendezvous.exists()


def test_sources_stop_before_workers(run_folder):
    run = make_run(run_folder, "first", "second")
    source = run.stages[1].model_copy(update={"is_source": True})
    with Supervisor(run.model_copy(update={"stages": (run.stages[0], source)})) as supervisor:
        supervisor.start()
    assert (run_folder / "closed").read_text().split() == ["second", "first"]


def test_a_stage_waits_for_those_whose_address_it_needs(run_folder):
    run = make_run(run_folder, "first", "second")
    later = run.stages[0].model_copy(update={"after": ("second",)})
    with Supervisor(run.model_copy(update={"stages": (later, run.stages[1])})) as supervisor:
        supervisor.start()
        until(lambda: len(supervisor.progress) == 2, supervisor)
        assert start_ticks(supervisor.pid("second")) < start_ticks(supervisor.pid("first"))


def test_a_killed_stage_comes_back(run_folder):
    with Supervisor(make_run(run_folder, "first")) as supervisor:
        supervisor.start()
        killed = supervisor.pid("first")
        os.kill(killed, signal.SIGKILL)
        until(lambda: supervisor.n_restarts == 1 and supervisor.is_ready, supervisor)
        assert supervisor.pid("first") != killed
    assert (run_folder / "closed").read_text().split() == ["first"]


def test_the_fork_server_killed_harms_no_stage_and_the_next_death_is_mended(run_folder):
    with Supervisor(make_run(run_folder, "first", "second")) as supervisor:
        supervisor.start()
        before, killed = supervisor.pid("second"), supervisor._server.pid
        os.kill(killed, signal.SIGKILL)
        until(lambda: supervisor._server.pid != killed, supervisor)
        os.kill(supervisor.pid("first"), signal.SIGKILL)
        until(lambda: supervisor.n_restarts == 1 and supervisor.is_ready, supervisor)
        assert supervisor.pid("second") == before
        log = supervisor.run.log_file.read_text()
    assert "run: the fork server was killed by signal 9; starts again" in log


def test_those_beside_the_run_are_told_which_processes_there_are_and_which_died(run_folder):
    began_s = time.time()
    with Supervisor(make_run(run_folder, "first", "second")) as supervisor:
        supervisor.start()
        killed, told = supervisor.pid("first"), StateReader(supervisor.run.rendezvous)
        os.kill(killed, signal.SIGKILL)
        until(lambda: supervisor.n_restarts == 1 and supervisor.is_ready, supervisor)
        pids = {
            "first": supervisor.pid("first"),
            "second": supervisor.pid("second"),
            "supervisor": os.getpid(),
        }
        until(lambda: {it.name: it.pid for it in told.processes()} == pids, supervisor)
        until(lambda: all(it.heard_s > began_s for it in told.processes()), supervisor)
        assert {it.name: it.n_restarts for it in told.processes()} == {
            "first": 1,
            "second": 0,
            "supervisor": 0,
        }
        assert all(it.is_running for it in told.processes())


def test_a_stage_that_keeps_dying_ends_the_run(run_folder, monkeypatch):
    monkeypatch.setattr("launch.run.processes.MAX_DEATHS", 1)
    with Supervisor(make_run(run_folder, "dying")) as supervisor, pytest.raises(RunFailedError) as caught:
        supervisor.start()
        until(lambda: False, supervisor)
    assert "stage dying died 2 times in 60 s, the last time was killed by signal 9" in str(caught.value)


@pytest.mark.allow_error_log
def test_a_stage_that_fails_alike_again_and_again_ends_the_run_and_says_so_once(run_folder):
    notices = []
    with (
        Supervisor(
            make_run(run_folder, "failing"), on_notice=lambda *notice: notices.append(notice)
        ) as supervisor,
        pytest.raises(RunFailedError) as caught,
    ):
        supervisor.start()
        until(lambda: False, supervisor)
    said = "TypeError: no such thing"
    log = run_folder / "logs" / "failing.log"
    assert str(caught.value) == f"stage failing failed 3 times alike: {said}; {log} has more"
    assert [text for _, level, text in notices if level == logging.ERROR] == [said]
    assert "Traceback" in log.read_text()


@pytest.mark.allow_error_log
def test_the_run_goes_on_without_a_stage_that_is_not_vital(run_folder, monkeypatch):
    monkeypatch.setattr("launch.run.processes.MAX_DEATHS", 0)
    notices = []
    run = make_run(run_folder, "dying", is_vital=False)
    with Supervisor(run, on_notice=lambda *notice: notices.append(notice)) as supervisor:
        supervisor.start()
        until(lambda: notices, supervisor)
        supervisor.poll()
    assert notices[0][2].endswith("the run goes on without it")


def test_nobody_waits_for_a_scan_whose_finisher_was_given_up(run_folder, monkeypatch):
    monkeypatch.setattr("launch.run.processes.MAX_DEATHS", 0)
    run = make_run(run_folder, "first", "dying", is_vital=False)
    finisher = run.stages[1].model_copy(update={"name": "finisher", "closes": False})
    run = run.model_copy(update={"stages": (run.stages[0], finisher)})
    scan = make_scan(run, 0, run.run_id)
    with Supervisor(run, on_notice=lambda *notice: None) as supervisor:
        supervisor.start()
        assert not supervisor.is_over(scan), "whatever becomes of the finisher: nothing waits for it yet"
        hand_over(scan, "refinement")
        supervisor.wait_for_series(1, timeout_s=PATIENCE_S)
        assert not supervisor.is_closed(scan), "a run into the same folder goes on with it"


def test_nobody_waits_for_a_series_that_was_refused_for_want_of_room(run_folder):
    run = make_run(run_folder, "detector_without_room")
    run = run.model_copy(update={"stages": (run.stages[0].model_copy(update={"name": "subscriber"}),)})
    with Supervisor(run, on_notice=lambda *notice: None) as supervisor:
        supervisor.start()
        supervisor.wait_for_series(1, timeout_s=PATIENCE_S)
        assert supervisor.scans() == []


def test_a_stage_that_refuses_says_why_and_is_not_started_again(run_folder):
    with Supervisor(make_run(run_folder, "refusing")) as supervisor, pytest.raises(RunFailedError) as caught:
        supervisor.start()
    assert str(caught.value) == (
        "stage refusing cannot run: probe.npy: probe has shape (3, 3), patterns have 64 x 64 pixels"
    )


@pytest.mark.allow_error_log
def test_a_full_disk_ends_the_run_with_its_message(run_folder):
    with Supervisor(make_run(run_folder, "full_disk")) as supervisor, pytest.raises(RunFailedError) as caught:
        supervisor.start()
        until(lambda: False, supervisor)
    assert str(caught.value) == "stage full_disk cannot run: no room for 100 frames in /scans"
    assert supervisor.n_restarts == 0


@pytest.mark.slow
def test_a_stage_that_is_not_ready_in_time_is_named(run_folder):
    with (
        Supervisor(make_run(run_folder, "first", "slow")) as supervisor,
        pytest.raises(RunFailedError, match=r"not ready after 8 s: slow"),
    ):
        supervisor.start(timeout_s=8.0)


def test_a_deaf_stage_is_killed(run_folder, monkeypatch):
    monkeypatch.setattr("launch.run.supervisor.STOP_GRACE_S", 0.2)
    with Supervisor(make_run(run_folder, "deaf")) as supervisor:
        supervisor.start()
        pid = supervisor.pid("deaf")
    assert not is_alive(pid)


def test_two_runs_do_not_share_a_folder(run_folder):
    with (
        Supervisor(make_run(run_folder, "first")),
        pytest.raises(RunFailedError, match="another run is writing to"),
        Supervisor(make_run(run_folder, "first")),
    ):
        pass


def close(scan: Scan, *stages: str) -> None:
    for stage in stages:
        scan.counters(stage, writable=True)["closed"] = 1


def make_scan(run: ResolvedRun, number: int, run_id: str) -> Scan:
    header = ScanHeader(
        series_id=number, series_uid="", frame_shape=(8, 8), frame_dtype="<u2", started_s=0.0, run_id=run_id
    )
    return Scan.create(run.scans / f"{number:04}-test", header)


def test_series_count_when_every_stage_has_closed_them(run_folder):
    run = make_run(run_folder, "first", "second")
    with Supervisor(run) as supervisor:
        make_scan(run, 0, run_id="an earlier run")
        scan = make_scan(run, 1, run.run_id)
        close(scan, "first")
        assert not supervisor.is_closed(scan)
        with pytest.raises(TimeoutError, match="0 of 1 series complete after 0 s"):
            supervisor.wait_for_series(1, timeout_s=0)
        close(scan, "second")
        seen = []
        supervisor.wait_for_series(1, on_turn=seen.append)
        assert [found.name for found in seen[-1]] == ["0001-test"]


def test_stopping_tells_all_and_waits_until_recorded_series_are_closed(run_folder):
    run = make_run(run_folder, "first")
    with Supervisor(run) as supervisor:
        supervisor.start()
        scan = make_scan(run, 0, run.run_id)
        turns = []
        assert not is_asked_to_end(supervisor.run.rendezvous)

        def close_later(scans: list[Scan]) -> None:
            turns.append(len(scans))
            assert is_asked_to_end(supervisor.run.rendezvous)
            if len(turns) == 3:
                close(scan, "first")

        supervisor.stop(on_turn=close_later)
        assert len(turns) == 3


def test_a_later_source_hears_the_end_of_what_an_earlier_one_began(run_folder):
    run = make_run(run_folder, "first", "second", is_source=True)
    with Supervisor(run) as supervisor:
        supervisor.start()
        scan = make_scan(run, 0, run.run_id)
        close(scan, "first")
        polls = []
        poll = supervisor.poll

        def close_later(timeout_s: float = 0.05) -> None:
            poll(timeout_s)
            polls.append((run_folder / "closed").exists())
            if polls.count(True) == 5:
                assert (run_folder / "closed").read_text().split() == ["first"]
                close(scan, "second")

        supervisor.poll = close_later
        supervisor.stop()
        assert polls.count(True) >= 5


RUN_UNTIL_INTERRUPTED = """
import sys
from pathlib import Path
from launch.run.supervisor import Supervisor
from tests.helpers.launch.runs import make_run
with Supervisor(make_run(Path(sys.argv[1]), "first", "second")) as supervisor:
    supervisor.start()
    print(supervisor.run.rendezvous, supervisor.pid("first"), supervisor.pid("second"), flush=True)
    while True:
        supervisor.poll()
"""


def start_run(save: Path) -> tuple[subprocess.Popen[str], Path, list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_UNTIL_INTERRUPTED, str(save)], stdout=subprocess.PIPE, text=True
    )
    rendezvous, *stages = process.stdout.readline().split()
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert {*stages} < {*pids}, "what forks them is among them as well"
    return process, Path(rendezvous), [int(pid) for pid in pids]


def test_ctrl_c_leaves_no_process_and_no_folder(run_folder):
    process, rendezvous, pids = start_run(run_folder)
    with process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == -signal.SIGINT
    assert not any(map(is_alive, pids))
    assert not rendezvous.exists()
    assert (run_folder / "closed").read_text().split() == ["first", "second"]


def test_stages_die_with_a_supervisor_that_is_killed(run_folder):
    process, rendezvous, pids = start_run(run_folder)
    with process:
        process.kill()
    deadline = time.monotonic() + PATIENCE_S
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, "stages outlived their supervisor"
    shutil.rmtree(rendezvous, ignore_errors=True)  # unless a run that has begun meanwhile was faster
