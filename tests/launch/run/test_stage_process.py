import os
import platform
import subprocess
import sys

import pytest

from launch.child_process import REFUSED
from launch.run.processes import StageProcess
from launch.run.stage_process import build
from tests.helpers.launch import quiet_stages
from tests.helpers.launch.runs import make_run
from tests.helpers.stream.clock import Clock


def test_a_stage_is_built_at_its_first_priority_and_works_at_its_last(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "nice", done.append)
    monkeypatch.setattr(quiet_stages, "first", lambda run: done.append("built"))
    build(make_run(tmp_path, "first", nice=5, nice_when_ready=3), "first")
    assert done == [5, "built", 3]


def test_a_stage_that_cannot_ring_its_bell_refuses_in_one_line(tmp_path):
    too_long = tmp_path / ("d" * 107)
    run = make_run(tmp_path, "first").model_copy(update={"rendezvous": too_long})
    run.write()
    module = "launch.run.stage_process"
    process = subprocess.run(
        [sys.executable, "-m", module, "first", run.file], capture_output=True, text=True, check=False
    )
    assert process.returncode == REFUSED
    [line] = process.stderr.splitlines()
    assert line.startswith(f"cannot run: cannot bind ipc://{too_long}/first.bell")


LOGS_MUCH = """
import logging, sys
from pathlib import Path
from launch.run import stage_process

stage_process.LOG_BYTES = 4000
stage_process.log_to(Path(sys.argv[1]))
for number in range(200):
    logging.getLogger("stage").warning("line %d", number)
print("printed", flush=True)
print("cannot run: no room", file=sys.stderr)
"""


def test_the_log_of_a_stage_does_not_grow_without_end_and_has_all_that_is_printed(tmp_path):
    run = make_run(tmp_path, "first")
    process = StageProcess(run.stage("first"), run, Clock())
    process.log_file.parent.mkdir(parents=True)
    process.log_file.write_text("of an earlier run\n" * 300)
    process._log_start = process.log_file.stat().st_size  # where this one begins
    with process.log_file.open("ab") as output:
        command = [sys.executable, "-c", LOGS_MUCH, process.log_file]
        subprocess.run(command, stdout=output, stderr=output, check=True)
    earlier = process.log_file.with_name("first.log.1")
    assert set(process.log_file.parent.iterdir()) == {process.log_file, earlier}
    assert all(path.stat().st_size < 4500 for path in (process.log_file, earlier))
    *_, last, printed, refusal = process.log_file.read_text().splitlines()
    assert last.endswith("WARNING stage: line 199")
    assert (printed, refusal) == ("printed", "cannot run: no room")
    assert process.last_words() == "no room"


def test_a_stage_that_is_started_by_hand_logs_where_it_is_started(tmp_path):
    file = tmp_path / "first.log"
    file.touch()
    process = subprocess.run(
        [sys.executable, "-c", LOGS_MUCH, file], capture_output=True, text=True, check=True
    )
    assert process.stderr.count("WARNING stage: line") == 200
    assert file.read_text() == ""


BATCHES = """
import resource, sys
from launch.child_process import keep_freed_memory

if sys.argv[1] == "keeps":
    keep_freed_memory()
for n in range(60):
    if n == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    batch = [bytearray(4 << 20) for _ in range(4)]
    del batch
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not platform.libc_ver()[0], reason="of glibc alone it is known what it keeps")
def test_memory_of_batches_that_come_and_go_is_not_asked_of_the_system_again():
    def n_faults(how):
        return int(
            subprocess.run([sys.executable, "-c", BATCHES, how], capture_output=True, check=True).stdout
        )

    assert n_faults("keeps") < n_faults("gives back") / 100
