import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.orient import change_file
from launch.commands.simulate import write_scan
from launch.config.file import load_config
from launch.config.reading import ConfigError
from launch.offline.orient import orient
from launch.offline.recorded import open_recorded
from operators.orientation.turn import Turn
from stream.record.scan import Scan, ScanHeader, State
from tests.helpers.launch.runs import make_run

CONFIG = """# ours
geometry: {energy_ev: 9000, detector_distance_m: 1.0, detector_pixel_m: 75.0e-6, n_pixels: 64}
detector:
  address: tcp://127.0.0.1:31001
positions:
  unit: um   # of the stage
"""


@pytest.fixture(scope="module")
def simulated():
    return simulate_scan(Simulation(n_rows=10, n_columns=10, step_px=6))


def test_a_scan_recorded_the_wrong_way_round_corrects_the_configuration(simulated, call, tmp_path):
    turn = Turn(True, (1, -1))
    scan = tmp_path / "scan.cxi"
    write_scan(scan, replace(simulated, positions_m=turn.inverse(simulated.positions_m)), "turned")
    config, figures = tmp_path / "ours.yaml", tmp_path / "figures.json"
    config.write_text(CONFIG)
    config.chmod(0o640)
    status, out, err = call("orient", str(scan), "--write", str(config), "--json", str(figures))
    assert (status, err) == (0, "")
    assert "y and x exchanged, then sign of x turned" in out
    assert config.read_text() == CONFIG + "  signs: [1, -1]\n  y: stage-x\n  x: stage-y\n"
    assert (tmp_path / "ours.yaml.before").read_text() == CONFIG
    assert config.stat().st_mode & 0o777 == 0o640
    assert load_config(config).positions.signs == (1, -1)
    told = json.loads(figures.read_text())
    assert told["confidence"] > 0.9
    assert told["centre"] == pytest.approx([32, 32], abs=0.5)
    assert told["settings"] == {"positions": {"signs": [1, -1], "y": "stage-x", "x": "stage-y"}}


def test_frames_without_structure_are_said_to_tell_nothing_and_change_nothing(simulated, call, tmp_path):
    """Of the newest scan that a configuration recorded: its frames differ by photon noise alone."""
    config = tmp_path / "ours.yaml"
    config.write_text(f"{CONFIG}save: {tmp_path}\n")
    run = make_run(tmp_path, "first").model_copy(update={"config": load_config(config)})
    run.write()
    rng = np.random.default_rng(0)
    mean = simulated.frames.mean(axis=0)
    header = ScanHeader(
        series_id=1,
        series_uid="a",
        frame_shape=mean.shape,
        frame_dtype="<u2",
        started_s=0.0,
        run_id=run.run_id,
    )
    scan = Scan.create(run.scans / "0000-a", header)
    numbers = np.arange(64)
    scan.column("frames", writable=True).write(numbers, rng.poisson(mean, (64, *mean.shape)).astype("<u2"))
    scan.column("positions_m", writable=True).write(numbers, simulated.positions_m[:64])
    scan.counters("subscriber", writable=True)["head"] = 64
    scan.mark("subscriber", numbers, State.DONE)
    scan.mark("positions", numbers, State.DONE)
    status, out, _ = call("orient", str(config), "--write", str(config))
    assert status == 1
    assert "no structure in these frames" in out
    assert "--first N" in out
    assert config.read_text() == f"{CONFIG}save: {tmp_path}\n"
    assert sorted(path.name for path in tmp_path.glob("ours*")) == ["ours.yaml"]


def test_a_configuration_without_a_scan_and_a_missing_one_are_named(call, tmp_path):
    config = tmp_path / "ours.yaml"
    config.write_text(f"{CONFIG}save: {tmp_path}\n")
    status, _, err = call("orient", str(config))
    assert status == 2
    assert f"there is no scan in {tmp_path / 'scans'}" in err
    status, _, err = call("orient", str(config), "--write", str(tmp_path / "none.yaml"))
    assert status == 2
    assert "none.yaml" in err


def test_a_change_that_makes_no_configuration_leaves_the_file_alone(tmp_path):
    config, kept = tmp_path / "ours.yaml", tmp_path / "kept"
    config.write_text(CONFIG)
    with pytest.raises(ConfigError, match="signs"):
        change_file(config, {("positions", "signs"): [2, 1]}, kept)
    assert config.read_text() == CONFIG
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.yaml"]


def test_a_mark_of_the_encoding_stays(tmp_path):
    config, kept = tmp_path / "ours.yaml", tmp_path / "kept"
    before = b"\xef\xbb\xbf" + CONFIG.replace("\n", "\r\n").encode()
    config.write_bytes(before)
    change_file(config, {("geometry", "n_pixels"): 32}, kept)
    assert config.read_bytes() == before.replace(b"n_pixels: 64", b"n_pixels: 32")
    assert kept.read_bytes() == before
    assert yaml.safe_load(config.read_text("utf-8-sig"))["geometry"]["n_pixels"] == 32


def test_a_gap_that_the_detector_marks_is_no_light(simulated, tmp_path):
    """Wider than any median takes out, and brighter than the beam if it were counts."""
    frames = simulated.frames.copy()
    frames[:, :, 44:50] = np.iinfo(frames.dtype).max
    path = tmp_path / "gap.cxi"
    write_scan(path, replace(simulated, frames=frames), "a gap")
    with open_recorded(str(path)) as scan:
        found = orient(scan, n_frames=64)
    assert found.centre == pytest.approx((32, 32), abs=1.0)
    assert found.orientation.turn.kind == Turn()
