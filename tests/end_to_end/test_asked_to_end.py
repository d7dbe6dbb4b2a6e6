"""A run that is asked to end, by a kill or because its terminal is gone, finishes what is recorded."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.results.cxi import read_result
from tests.helpers.launch.commands import (
    TURN_S,
    free_address,
    n_recorded,
    on_terminal,
    processes_of,
    running,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def arguments(run_folder: Path) -> Iterator[list[object]]:
    """Of a `run` beside a detector that sends a frame now and then, and would for a long time."""
    write_scan(run_folder / "sent.cxi", simulate_scan(Simulation(n_rows=20, n_columns=20)), "test")
    detector, positions, live = (free_address() for _ in range(3))
    sending = [
        "replay",
        run_folder / "sent.cxi",
        "--rate",
        10,
        "--address",
        detector,
        "--positions",
        positions,
    ]
    addresses = {"detector.address": detector, "positions.address": positions, "live.address": live}
    settings = {**addresses, "detector.bind": "false", "viewer.enabled": "false"}
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    with running(run_folder / "replay.log", *sending):
        yield [
            "run",
            "demo",
            "--series",
            2,
            "--save",
            run_folder,
            "--json",
            run_folder / "run.json",
            *changes,
        ]


@pytest.mark.parametrize(("how", "status"), [("kill", 143), ("terminal", 129)])
def test_what_is_recorded_is_finished_and_its_results_are_written(run_folder, arguments, how, status):
    with on_terminal(*arguments) as (process, take_away):
        while n_recorded(run_folder) < 10:  # perhaps before all stages are ready
            assert process.poll() is None
            with suppress(subprocess.TimeoutExpired):
                process.wait(TURN_S)
        if how == "terminal":
            take_away()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(200) == status
    (figures,) = json.loads((run_folder / "run.json").read_text())["scans"]
    assert figures["frames_refined"] == figures["frames_recorded"] >= 10
    assert len(read_result(Path(figures["result"])).frame_numbers) == figures["frames_recorded"]
    assert not [command for command in processes_of(run_folder) if "replay" not in command]
