"""The day with a GPU is rehearsed whole on a CPU, and whatever dies in it is named with its reason."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from launch.config.run_file import ResolvedRun
from stream.record.scan import Numbers, Scan
from stream.stages.stage import ScanWork
from tests.benchmarks.gpu_day import Part, main, requirements, run_parts
from tests.benchmarks.kilohertz.live import LiveRun, run_live
from tests.benchmarks.kilohertz.scan import RepeatingScan
from tests.benchmarks.network.untrained import SHAPE_32, save_untrained


def _part(name: str, code: str, limit_s: float = 60.0) -> Part:
    return Part(name=name, command=[sys.executable, "-c", code], limit_s=limit_s)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_rehearsal_gives_the_figures_of_every_part(tmp_path: Path) -> None:
    folder, wheels = tmp_path / "day", tmp_path / "wheels"
    wheels.mkdir()  # what the rehearsal needs is here already
    assert main([str(folder), "--rehearse", "--wheels", str(wheels), "--minutes", "6"]) == 0
    outcomes = json.loads((folder / "figures.json").read_text())
    assert {name: outcome["why"] for name, outcome in outcomes.items()} == dict.fromkeys(
        ("install", "live_gpu", "network_gpu", "engines_gpu", "cuda_tests"), ""
    )
    figures = {name: outcome["figures"] for name, outcome in outcomes.items()}
    live = figures["live_gpu"]
    assert (live["frames_recorded"], live["frames_lost"], live["frames_pending"]) == (200, 0, 0)
    assert live["frames_mosaicked"] == live["frames_refined"] == live["client_frames_seen"] == 200
    assert 0 < live["time_to_image_ms_p50"] <= live["time_to_image_ms_p99"]
    assert live["patterns_per_s"] > 0
    assert live["updates_per_s"] > 0
    assert live["epochs"] == pytest.approx(2, abs=0.1)
    assert live["refined_error"] < 0.1  # its frames fit together
    assert figures["network_gpu"]["gpu_patterns_per_s"] > 0
    assert figures["engines_gpu"]["gpu_equal_to_reference"] < 1e-3
    assert figures["cuda_tests"]["passed"] > 0
    assert "failed" not in figures["cuda_tests"]
    assert (folder / "logs.zip").stat().st_size > 0


def test_part_that_is_killed_is_named_with_its_signal_and_last_words_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = "import os; print('illegal memory access', flush=True); os.kill(os.getpid(), 11)"
    listed = [_part("falls", killed), _part("stands", "print('well')")]
    outcomes = run_parts(listed, tmp_path, tmp_path / "work", minutes=1)
    assert outcomes["falls"].why == "was killed by signal 11 (SIGSEGV)"
    assert outcomes["falls"].last_lines["falls"] == ["illegal memory access"]
    assert "illegal memory access" in capsys.readouterr().out
    assert outcomes["stands"].status == "done"
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["falls"]["why"] == outcomes["falls"].why


def test_part_that_outlasts_its_limit_is_ended_with_what_it_started(tmp_path: Path) -> None:
    sleeper = "import time; time.sleep(600)"
    code = (
        "import subprocess, sys; "
        f"child = subprocess.Popen([sys.executable, '-c', {sleeper!r}], start_new_session=True); "
        "print(child.pid, flush=True); child.wait()"
    )
    outcomes = run_parts([_part("sleeps", code, limit_s=3.0)], tmp_path, tmp_path / "work", minutes=1)
    assert outcomes["sleeps"].why == "not done after 3 s"
    child = int(outcomes["sleeps"].last_lines["sleeps"][0])
    deadline = time.monotonic() + 10
    while _is_alive(child):
        assert time.monotonic() < deadline, "its child still runs"


def test_part_for_which_no_time_is_left_is_not_begun(tmp_path: Path) -> None:
    outcomes = run_parts([_part("late", "print()")], tmp_path, tmp_path / "work", minutes=0)
    assert (outcomes["late"].status, outcomes["late"].why) == ("not begun", "no time was left")


@pytest.mark.slow
def test_stage_that_dies_in_the_live_run_is_named_with_its_last_words(tmp_path: Path) -> None:
    run = LiveRun(
        scan=RepeatingScan(n_frames=64, n_pixels=32),
        rate_hz=200.0,
        weights=save_untrained(tmp_path / "untrained.safetensors", SHAPE_32),
        settings={"refinement": {"enabled": False}, "viewer": {"enabled": False}},
        positions="file",
        builders={"inference": f"{__name__}:failing_inference"},
    )
    figures = run_live(run, tmp_path / "live")
    assert "inference failed 3 times alike: RuntimeError: an illegal memory access" in figures["why"]
    assert figures["restarts"] == 2
    assert "an illegal memory access" in "\n".join(figures["last_words"]["inference"])
    assert figures["frames_recorded"] + figures["frames_lost"] <= 64
    assert figures["pending_inference"] == figures["frames_recorded"]


def test_wheels_are_collected_for_what_the_project_asks_for_and_the_tests() -> None:
    names = {line.partition(">")[0].partition("[")[0] for line in requirements("gpu-cuda13")}
    assert {"numpy", "pydantic", "torch", "cupy-cuda13x", "pytest", "pytest-timeout"} <= names
    assert "ptychostream" not in names


class FailingInference:
    """Worker whose device fails with the first frames."""

    name, inputs, waits_for = "inference", ("subscriber",), ()
    batch_size, deadline_s = 8, 0.0

    def open(self, scan: Scan) -> ScanWork:
        return _FailingWork()


class _FailingWork(ScanWork):
    def handle(self, numbers: Numbers) -> None:
        raise RuntimeError("an illegal memory access was encountered")


def failing_inference(run: ResolvedRun) -> FailingInference:
    return FailingInference()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_folder_without_wheels_is_refused_before_anything_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "day"), "--wheels", str(tmp_path)])
    assert "no folder that --collect has filled" in capsys.readouterr().err
    assert not (tmp_path / "day").exists()
