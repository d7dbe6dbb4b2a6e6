"""The steered demo as a stranger runs it, a person who speaks to it, and its decisions made again."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

from launch.beamline.steered_sample import SparseSample, simulate_specimen
from stream.documents.codec import decisions_of, read_documents
from stream.record.account import account
from stream.record.scan import Scan, scans_in
from stream.steering.record import PATTERN
from tests.helpers.launch.commands import n_recorded, ptychostream, running

# The image has to follow, and the agent to decide in time.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(400)]

N_FRAMES = 240
RATE_HZ = 25  # that the image can follow on a machine which does other things, too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a steered demo has saved everything."""
    folder = tmp_path_factory.mktemp("steered")
    done = ptychostream(
        "demo", "--adaptive", "--no-browser", "--no-store", "--rate", RATE_HZ, "--frames", N_FRAMES,
        "--save", folder, "--json", folder / "figures.json", timeout_s=350,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "figures.json").read_text())


@pytest.fixture(scope="module")
def scan(folder: Path) -> Scan:
    return next(scans_in(folder / "scans"))


def test_every_frame_of_both_scans_is_accounted_for(folder: Path, figures: dict[str, Any]) -> None:
    for scan in scans_in(folder / "scans"):
        recorded = account(scan, "subscriber")
        assert (recorded.expected, recorded.recorded, recorded.lost) == (N_FRAMES, N_FRAMES, 0)
        assert account(scan, "positions").done == N_FRAMES
    assert figures["frames_spiral"] == figures["frames_recorded"] == N_FRAMES
    assert figures["is_complete"]
    assert figures["restarts"] == 0


def test_the_agent_steered_within_the_limits_and_every_decision_is_in_the_run(
    figures: dict[str, Any], scan: Scan
) -> None:
    decisions = decisions_of(scan.folder)
    assert figures["decisions"] == {"agent": N_FRAMES // 24, "end": 1}
    assert sum(decision["n_points"] for decision in decisions) == N_FRAMES
    assert any(decision["reason"].startswith("importance") for decision in decisions)
    (stop,) = (document for name, document in read_documents(scan.folder) if name == "stop")
    assert stop["exit_status"] == "success"
    specimen = simulate_specimen(SparseSample(seed=7))
    positions_um = scan.column("positions_m").read(np.arange(N_FRAMES)) * 1e6
    low, high = np.array(specimen.limits).T
    assert ((positions_um >= low) & (positions_um <= high)).all()
    assert max(decision["dose_peak"] for decision in decisions) > 0


def test_structure_is_measured_more_densely_than_empty_ground(scan: Scan) -> None:
    specimen = simulate_specimen(SparseSample(seed=7))
    positions_um = scan.column("positions_m").read(np.arange(N_FRAMES)) * 1e6
    rows, columns = specimen.axes.centres(positions_um).T
    decided = [
        decision["reason"].startswith("importance")  # the others survey, everywhere alike
        for decision in decisions_of(scan.folder)
        for _ in range(decision["n_points"])
    ]
    on_structure = specimen.region[rows, columns]
    planned = specimen.axes.centres(specimen.spiral(N_FRAMES)).T
    share_of_spiral = specimen.region[planned[0], planned[1]].mean()
    assert on_structure[decided].mean() > 1.3 * share_of_spiral
    assert on_structure.mean() > share_of_spiral


def test_decisions_made_again_are_the_same_and_a_tampered_record_is_found(
    figures: dict[str, Any], scan: Scan, tmp_path: Path
) -> None:
    assert figures["recommendations_replayed"] == figures["recommendations"] > N_FRAMES // 24
    done = ptychostream("replay-decisions", scan.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    copy = tmp_path / "scan"
    shutil.copytree(scan.folder, copy)
    (file,) = copy.glob(PATTERN)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    done = ptychostream("replay-decisions", copy)
    assert done.returncode == 1
    assert "is not what was written" in done.stdout


def test_a_person_stops_the_scan_from_the_terminal_and_it_ends_complete(run_folder: Path) -> None:
    log = run_folder / "demo.log"
    words = ("demo", "--adaptive", "--no-browser", "--no-store", "--rate", RATE_HZ, "--save", run_folder)
    with running(log, *words) as demo:
        demo.until(lambda: (run_folder / "scans").is_dir() and n_recorded(run_folder) > 60)
        address = re.search(r"ptychostream steer (\S+)", log.read_text())[1]
        done = ptychostream("steer", address, "stop")
        assert done.returncode == 0, done.stderr
        assert demo.ends(250.0) == 0
    steered, spiral = scans_in(run_folder / "scans")
    n_steered = account(steered, "subscriber").recorded
    assert 60 < n_steered < 324
    assert account(steered, "subscriber").lost == 0
    assert account(spiral, "subscriber").recorded == n_steered
    last = decisions_of(steered.folder)[-1]
    assert last["source"] == "end"
    assert last["reason"].startswith("stopped by a person (")
