"""Many short series, and runs that were killed: what a shift does to the real processes."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from stream.live.client import LiveReconstruction
from tests.helpers.held import Held, held_by
from tests.helpers.launch.commands import free_address, n_recorded, running
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline

pytestmark = pytest.mark.slow

N_WARM, N_SERIES = 20, 120
MOST_GROWTH_MB = 5.0
QUICK = ("refinement.epochs=2", "refinement.first_frames=8", "viewer.enabled=true", "viewer.port=0")


@pytest.mark.timeout(900)
def test_no_process_of_a_run_holds_more_after_many_series_than_after_a_few(
    run_folder: Path, sample: ScannedSample
) -> None:
    short = sample.first(16)
    with (
        Pipeline(run_folder, short, *QUICK) as pipeline,
        LiveReconstruction(pipeline.live_address, follow=True) as client,
    ):

        def held() -> dict[str, Held]:
            pipeline.until(lambda: pipeline.supervisor.state.level == "complete")
            stages = {
                spec.name: pipeline.supervisor.pid(spec.name) for spec in pipeline.supervisor.run.stages
            }
            processes = stages | {"supervisor and client": os.getpid()}
            return {name: held_by(pid, run_folder) for name, pid in processes.items()}

        pipeline.on_turn = client.poll
        for number in range(N_SERIES):
            pipeline.run(short, f"series-{number}")
            if number == N_WARM:
                before = held()
        after = held()
    for name, now in after.items():
        grown = Held(*(a - b for a, b in zip(now, before[name], strict=True)))
        # Of the last scan a process may be about to look at a file, or to let go of it.
        assert grown.descriptors <= 16, f"{name}: {before[name]} became {now}"
        assert grown.maps <= 16, f"{name}: {before[name]} became {now}"
        # Of the tests' own process earlier tests have a share that comes and goes.
        is_own = name == "supervisor and client"
        assert is_own or grown.memory_mb < MOST_GROWTH_MB, f"{name}: {before[name]} became {now}"


@pytest.fixture
def run_beside_a_detector(run_folder: Path) -> Iterator[list[object]]:
    """The arguments of a `run` of any end, beside a detector that takes its time."""
    write_scan(run_folder / "sent.cxi", simulate_scan(Simulation(n_rows=12, n_columns=12)), "test")
    detector, positions, live = (free_address() for _ in range(3))
    sending = ("replay", run_folder / "sent.cxi", "--rate", 20)
    addresses = {"detector.address": detector, "positions.address": positions, "live.address": live}
    settings = {**addresses, "detector.bind": "false", "viewer.enabled": "false"}
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    with running(run_folder / "replay.log", *sending, "--address", detector, "--positions", positions):
        yield ["run", "demo", "--save", run_folder, *changes]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ends", [("--series", 1), ("--resume",)])
def test_a_scan_whose_whole_run_was_killed_is_finished_by_the_next_one_and_counts_there(
    run_folder: Path, run_beside_a_detector: list[object], ends: tuple[object, ...]
) -> None:
    with running(run_folder / "killed.log", *run_beside_a_detector) as run:
        run.until(lambda: n_recorded(run_folder) >= 20)
        os.kill(run.process.pid, signal.SIGKILL)
        run.ends()
    with running(
        run_folder / "resumed.log", *run_beside_a_detector, *ends, "--json", run_folder / "run.json"
    ) as run:
        status = run.ends(200)
        told = run.output()
    figures = json.loads((run_folder / "run.json").read_text())
    (scan,) = figures["scans"]
    assert scan["frames_recorded"] >= 20
    assert scan["frames_recorded"] == scan["frames_refined"] + scan["frames_without_position"]
    assert status == (0 if scan["is_complete"] else 1), told
    assert "nothing from" not in told
    assert any("goes on" in event["text"] for event in scan["events"]), scan["events"]
