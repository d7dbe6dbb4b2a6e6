"""The benchmark of steering among recorded positions, on a small simulated scan in the place of the star."""

import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.offline.recorded import RecordedScan
from operators.geometry import Bounds
from tests.benchmarks.adaptive.recorded import PLANNED, Ground, Whole, planned_frames, steered_frames

N_FRAMES = 144


@pytest.fixture(scope="module")
def ground() -> Ground:
    simulated = simulate_scan(Simulation(n_rows=12, n_columns=12))
    scan = RecordedScan(
        frames=simulated.frames,
        frame_numbers=np.arange(N_FRAMES),
        positions_m=simulated.positions_m,
        geometry=simulated.geometry,
        probe=None,
        mask=simulated.mask,
        name="simulated",
    )
    photons = np.zeros(simulated.object.shape, np.float32)
    light = (np.abs(simulated.probe) ** 2).sum(axis=0)
    for top, left in np.rint(simulated.geometry.to_pixels(simulated.positions_m)).astype(int):
        photons[top : top + len(light), left : left + len(light)] += light
    bounds = Bounds(0, 0, *photons.shape)
    return Ground(scan, Whole(object=simulated.object, photons=photons, bounds=bounds, probe=simulated.probe))


@pytest.mark.parametrize("arm", PLANNED)
@pytest.mark.parametrize("n", [16, 30, 49])
def test_a_pattern_takes_recorded_positions_all_over_the_field_and_none_twice(
    ground: Ground, arm: str, n: int
) -> None:
    for seed in range(3):
        frames = planned_frames(ground, arm, n, seed)
        assert len(set(frames)) == n
        span = np.ptp(ground.centres, axis=0)
        assert (np.ptp(ground.centres[frames], axis=0) > 0.7 * span).all()
    assert planned_frames(ground, arm, n, 0) != planned_frames(ground, arm, n, 1)


def test_the_policy_takes_recorded_positions_and_more_of_them_make_a_better_image(
    ground: Ground,
) -> None:
    frames = steered_frames(ground, 96, seed=0)
    assert len(set(frames)) == 96
    few, many = (ground.judged(frames[:n], epochs=6, seed=0) for n in (40, 96))
    assert many[0] < few[0]
    assert 0 <= few[1] <= 0.5
