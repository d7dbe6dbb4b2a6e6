import os
import subprocess
import sys

from launch.child_process import REFUSED
from launch.run.stage_process import build
from tests.helpers.launch import quiet_stages
from tests.helpers.launch.runs import make_run


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
