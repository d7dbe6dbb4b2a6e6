"""The demo as a stranger runs it: complete, accurate, stored, and gone when it is interrupted."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("databroker", reason="the extra 'beamline' is not installed")

import dask.array

from launch.beamline.simulation import SimulatedScan, simulate_scan
from launch.commands.demo import DemoOptions
from launch.commands.ledger import ledger
from launch.results.cxi import read_result
from launch.results.store.catalogue import open_store
from operators.metrics.errors import nrmse
from stream.record.account import account
from stream.record.scan import Scan, scans_in
from tests.helpers.launch.commands import Command, n_recorded, processes_of, ptychostream, running
from tests.helpers.letter import sample_of
from tests.helpers.pipeline import Pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

N_FRAMES = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a demo has saved everything."""
    folder = tmp_path_factory.mktemp("demo")
    done = ptychostream(
        "demo", "--no-browser", "--frames", N_FRAMES, "--save", folder, "--json", folder / "figures.json",
        "--log-json", timeout_s=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "live page   http://127.0.0.1:" in done.stdout
    (folder / "told").write_text(done.stdout)
    # Dask, which databroker reads with, keeps its threads for the life of the process.
    dask.array.zeros(8, chunks=1).compute(scheduler="threads")
    return folder


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "figures.json").read_text())


@pytest.fixture(scope="module")
def simulated(folder: Path) -> SimulatedScan:
    """The scan that the demo's beamline played."""
    return simulate_scan(
        DemoOptions(
            save=folder, rate_hz=100.0, n_frames=N_FRAMES, sample="siemens", seed=7, stores=True
        ).simulation
    )


@pytest.fixture(scope="module")
def scan(folder: Path) -> Scan:
    (scan,) = scans_in(folder / "scans")
    return scan


def test_every_frame_is_accounted_for(figures: dict[str, Any]) -> None:
    assert figures["frames_expected"] == figures["frames_recorded"] + figures["frames_lost"] == N_FRAMES
    assert (figures["frames_lost"], figures["frames_pending"]) == (0, 0)
    assert figures["frames_inferred"] == figures["frames_mosaicked"] == figures["frames_refined"] == N_FRAMES
    assert figures["restarts"] == 0


def test_the_run_is_told_from_begin_to_end_to_people_and_to_programs(folder: Path, scan: Scan) -> None:
    (log,) = folder.glob("logs/*T*.log")
    lines = [line.split(maxsplit=4)[3:] for line in log.read_text().splitlines()]
    begun, ready, first, *_, last = lines
    assert begun[1].startswith("run: begins: ptychostream ")
    assert [ready, first] == [
        ["-", "run: ready for the first frame"],
        [scan.name, f"scan: {scan.name} begins, {N_FRAMES} frames"],
    ]
    assert [scan.name, f"scan: {scan.name}: scan complete: all {N_FRAMES} frames are in the image"] in lines
    assert last == [scan.name, "run: ends"]
    told = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
    said = [(one["scan"] or "-", f"{one['stage']}: {one['message']}") for one in told]
    assert said[0] == tuple(begun)
    assert {tuple(line) for line in lines} <= set(said)
    (figures,) = (one["fields"] for one in told if one["message"] == "result is complete")
    assert figures["frames_mosaicked"] == N_FRAMES


def test_the_ledger_is_that_of_the_summary(folder: Path, figures: dict[str, Any]) -> None:
    ledger(folder, json_file=folder / "ledger.json", console=Console(quiet=True))
    shown = json.loads((folder / "ledger.json").read_text())
    assert (shown["expected"], shown["recorded"], shown["open_stages"]) == (N_FRAMES, N_FRAMES, [])
    stages = {stage["stage"]: stage for stage in shown["stages"]}
    assert list(stages) == ["subscriber", "positions", "inference", "refinement", "stitcher"]
    assert {stage["done"] for stage in stages.values()} == {N_FRAMES}
    for percentile in ("p50", "p99"):
        times_ms = {name: stage[f"time_ms_{percentile}"] for name, stage in stages.items()}
        assert times_ms["stitcher"] == figures[f"time_to_image_ms_{percentile}"]
        assert times_ms["refinement"] == figures[f"time_to_refined_ms_{percentile}"]
        assert 0 <= times_ms["subscriber"] < times_ms["inference"] < times_ms["stitcher"]
        assert 0 < times_ms["positions"] < times_ms["stitcher"]


def test_the_image_is_close_to_the_truth(figures: dict[str, Any]) -> None:
    assert figures["c_refined"] < 0.1
    assert figures["c_mosaic"] < 0.25
    assert figures["c_refined"] < figures["c_mosaic"] < figures["c_constant"] / 2
    assert 0 < figures["time_to_image_ms_p50"] <= figures["time_to_image_ms_p99"]


def test_result_and_picture_are_there(figures: dict[str, Any]) -> None:
    result = read_result(Path(figures["result"]))
    assert np.isfinite(result.object).all()
    assert Path(figures["picture"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore")
def test_the_run_is_found_in_the_store_as_it_was_sent(
    folder: Path, figures: dict[str, Any], simulated: SimulatedScan, scan: Scan
) -> None:
    with open_store(folder / "store") as store:
        header = store.databroker()[figures["uid"]]
        assert header.start["plan_name"] == "simulated_fly_scan"
        assert header.stop["exit_status"] == "success"
        table = header.table(fill=True)
        recorded = header.table("recorded", fill=True)
        frames = np.stack(recorded["recorded_frames"].tolist())
        assert len(store.results(figures["uid"])) == 1
    np.testing.assert_array_equal(frames, simulated.frames)
    np.testing.assert_array_equal(frames, scan.column("frames").read(np.arange(N_FRAMES)))
    positions_um = table[["stage-y", "stage-x"]].to_numpy(np.float64)
    recorded_m = scan.column("positions_m").read(np.arange(N_FRAMES))
    np.testing.assert_allclose(positions_um * 1e-6, recorded_m, rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose(recorded_m, simulated.positions_m, atol=1e-8)  # encoders have noise


def test_the_stored_run_replays_to_the_same_object(
    folder: Path, figures: dict[str, Any], simulated: SimulatedScan, run_folder: Path
) -> None:
    sample = sample_of(simulated)
    with Pipeline(run_folder, sample, "network.weights=demo") as pipeline:
        pipeline.detector.close()  # the command takes its place
        played = ptychostream(
            "replay", figures["uid"], "--store", folder / "store", "--rate", 100,
            "--address", pipeline.detector.address, "--bind",
            "--positions", pipeline.supervisor.address("positions"),
        )  # fmt: skip
        assert played.returncode == 0, played.stderr
        pipeline.until(lambda: pipeline.supervisor.scans())
        (replayed,) = pipeline.supervisor.scans()
        outcome = pipeline.outcome(replayed.header.series_uid)
    outcome.assert_accounted(recorded=N_FRAMES)
    first = read_result(Path(figures["result"]))
    assert outcome.result.bounds == first.bounds
    assert nrmse(outcome.result.object, first.object, sample.lit).loose <= 0.02


def test_the_demo_runs_again_in_its_folder(folder: Path, scan: Scan) -> None:
    again = folder / "again.json"
    done = ptychostream(
        "demo", "--no-browser", "--no-store", "--frames", 49, "--save", folder, "--json", again, timeout_s=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(again.read_text())
    assert figures["frames_recorded"] == figures["frames_refined"] == 49
    assert sorted(each.n_frames for each in scans_in(folder / "scans")) == [49, N_FRAMES]
    assert account(scan, "subscriber").recorded == N_FRAMES


def test_the_page_stays_until_who_looks_at_it_leaves(run_folder: Path) -> None:
    log = run_folder / "demo.log"

    async def look(demo: Command) -> str:
        page = demo.output().split("live page ")[1].split()[0]
        async with aiohttp.ClientSession() as browser, browser.ws_connect(f"{page}/live") as socket:
            hearing = asyncio.create_task(socket.receive())  # answers the page's heartbeats, as browsers do
            await asyncio.to_thread(demo.until, lambda: f"{page} stays" in demo.output())
            hearing.cancel()
            async with browser.get(page) as answer:
                return await answer.text()

    with running(log, "demo", "--no-store", "--frames", 36, "--save", run_folder) as demo:
        demo.until(lambda: "live page" in demo.output())
        assert "<html" in asyncio.run(look(demo))
        assert demo.ends() == 0
    assert "result is" in log.read_text().split(" stays ")[0]


def test_ctrl_c_in_the_middle_leaves_no_process(run_folder: Path) -> None:
    log = run_folder / "demo.log"
    with running(log, "demo", "--no-browser", "--no-store", "--rate", 50, "--save", run_folder) as demo:
        demo.until(lambda: n_recorded(run_folder) > 100)
        os.killpg(demo.process.pid, signal.SIGINT)
        assert demo.ends() == 128 + signal.SIGINT
        assert processes_of(run_folder) == []
    (scan,) = scans_in(run_folder / "scans")
    printed = log.read_text().split("finishing what is recorded")[1]
    assert "result is" in printed and f"1 scan lies in {run_folder}" in printed
    assert (run_folder / "results" / f"{scan.name}.cxi").is_file()
    assert 100 < account(scan, "subscriber").recorded < 625
