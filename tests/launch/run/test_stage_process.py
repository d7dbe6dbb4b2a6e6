import os

from launch.run.stage_process import build
from tests.helpers.launch import quiet_stages
from tests.helpers.launch.runs import make_run


def test_a_stage_is_built_at_its_first_priority_and_works_at_its_last(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "nice", done.append)
    monkeypatch.setattr(quiet_stages, "first", lambda run: done.append("built"))
    build(make_run(tmp_path, "first", nice=5, nice_when_ready=3), "first")
    assert done == [5, "built", 3]
