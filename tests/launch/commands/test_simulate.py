import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from launch.beamline.simulation import BeamEffects, SimulatedScan, Simulation, StageEffects, simulate_scan
from launch.cli import app
from launch.commands.simulate import read_simulation, write_scan
from launch.config.reading import ConfigError
from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import RecordedScan, open_recorded
from launch.offline.task import ReconstructOptions
from launch.results.reconstruction import Reconstruction
from operators.engine.config import RefinerConfig
from operators.metrics.errors import nrmse
from operators.metrics.gauge import remove_gauge
from operators.optics.detector_effects import DetectorEffects

RECIPES = Path(__file__).parents[3] / "launch" / "recipes"
REAL = Simulation(
    n_rows=12,
    n_columns=12,
    step_px=4,
    family="voronoi",
    seed=2,
    beam=BeamEffects(coherence_px=10, n_modes=3, drift=0.02),  # the second and the third are equally strong
    stage=StageEffects(drift_px=0.35),
    detector=DetectorEffects(dead_share=0.005, hot_share=0.005, gap_px=3, background=4.0, gain_spread=0.01),
)


def test_the_example_of_effects_is_a_scan_with_all_of_them(tmp_path: Path) -> None:
    simulation = replace(read_simulation(RECIPES / "simulate-effects.yaml"), n_rows=4, n_columns=5)
    scan = simulate_scan(simulation)
    assert len(scan.probe) == 4
    assert 0.8 < scan.mask.mean() < 0.95
    assert not np.array_equal(scan.positions_m, scan.true_positions_m)
    assert scan.flux.std() == pytest.approx(0.05)
    assert scan.background[scan.mask].mean() == pytest.approx(1.0, rel=0.1)
    assert (scan.frames[:, ~scan.mask & (scan.background == 0)] == 0).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_row: 3", "scan.yaml: n_row: unknown key, did you mean 'n_rows'?"),
        ("beam: {shake: 3}", "beam.shake: unknown key; the keys here are"),
        ("detector: {gap_px: wide}", "detector.gap_px: wanted a whole number, got 'wide'"),
        ("detector: {background: -1}", "detector: background must be 0 or more, got -1"),
        ("a: [", "scan.yaml:1: not YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_simulation(tmp_path / "scan.yaml")


def test_the_command_takes_a_file_and_options_that_override_it(tmp_path: Path) -> None:
    config, output = RECIPES / "simulate-effects.yaml", tmp_path / "scan.cxi"
    options = ["--config", str(config), "--rows", "3", "--columns", "4", "--seed", "7"]
    result = CliRunner().invoke(app, ["simulate", str(output), *options])
    assert result.output == f"12 frames in {output}\n"
    expected = simulate_scan(replace(read_simulation(config), n_rows=3, n_columns=4, seed=7))
    with h5py.File(output) as file:
        np.testing.assert_array_equal(file["entry_1/data_1/data"], expected.frames)
        np.testing.assert_array_equal(file["truth/probe"], expected.probe)
        np.testing.assert_array_equal(file["truth/flux"], expected.flux)
        true_px = expected.geometry.to_pixels(expected.true_positions_m)
        np.testing.assert_allclose(file["truth/positions_px"], true_px)


@pytest.fixture(scope="module")
def truth() -> SimulatedScan:
    return simulate_scan(REAL)


@pytest.fixture
def recorded(truth: SimulatedScan, tmp_path: Path) -> Iterator[RecordedScan]:
    write_scan(tmp_path / "real.cxi", truth, "test")
    with open_recorded(str(tmp_path / "real.cxi")) as scan:
        yield scan


def test_the_file_says_what_a_beamline_would_know(truth: SimulatedScan, recorded: RecordedScan) -> None:
    np.testing.assert_array_equal(recorded.mask, truth.mask)
    np.testing.assert_allclose(recorded.positions_m, truth.positions_m, atol=1e-15)
    np.testing.assert_array_equal(recorded.probe, truth.nominal_probe)
    assert recorded.preprocess is not None
    dark = recorded.preprocess()(np.rint(truth.background).astype(np.uint16)[None])
    assert np.abs(dark).max() <= 0.5


def error(result: Reconstruction, truth: SimulatedScan) -> float:
    """`c` well inside the scan, without what ptychography with an unknown probe cannot know."""
    inside = 30
    bounds, shape = result.bounds, truth.object.shape
    rows = slice(inside - bounds.top, shape[0] - inside - bounds.top)
    columns = slice(inside - bounds.left, shape[1] - inside - bounds.left)
    expected = truth.object[inside:-inside, inside:-inside]
    return nrmse(remove_gauge(result.object[rows, columns], expected, scale=True), expected).c


RIGHT = ReconstructOptions(refiner=RefinerConfig(refines_positions=True), epochs=40, n_modes=3)


def error_with(
    simulation: Simulation, folder: Path, options: ReconstructOptions = RIGHT, **preparation: Any
) -> float:
    """The error of a scan that was simulated, written, opened and reconstructed."""
    truth = simulate_scan(simulation)
    write_scan(folder / "real.cxi", truth, "test")
    with open_recorded(str(folder / "real.cxi")) as recorded:
        assert recorded.preprocess is not None
        prepare = replace(recorded.preprocess(), **preparation)
        return error(reconstruct(recorded, options, preprocess=prepare), truth)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Simulation], float]:
    """The error with every right option; each scan is reconstructed once."""
    return cache(lambda simulation: error_with(simulation, tmp_path_factory.mktemp("right")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("simulation", "worse_options", "worse_preparation"),
    [
        # Without drift: what it leaves of the error hides that of the other modes.
        pytest.param(replace(REAL, stage=StageEffects()), {"n_modes": 1}, {}, id="one mode"),
        pytest.param(REAL, {"refiner": RefinerConfig()}, {}, id="drift ignored"),
        pytest.param(REAL, {}, {"valid_pixels": None}, id="mask ignored"),
        pytest.param(REAL, {}, {"background": 0.0}, id="background kept"),
    ],
)
def test_a_real_scan_reconstructs_better_with_each_right_option(
    tmp_path: Path,
    right: Callable[[Simulation], float],
    simulation: Simulation,
    worse_options: dict[str, Any],
    worse_preparation: dict[str, Any],
) -> None:
    wrong = error_with(simulation, tmp_path, replace(RIGHT, **worse_options), **worse_preparation)
    assert right(simulation) < 0.3
    assert right(simulation) < 0.95 * wrong
