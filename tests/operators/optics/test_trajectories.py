import numpy as np
import pytest

from operators.optics.trajectories import (
    fermat_spiral,
    jittered_raster,
    random_drift,
    raster,
)


def test_raster_runs_along_rows():
    assert raster(2, 3, 0.5).tolist() == [[0, 0], [0, 0.5], [0, 1], [0.5, 0], [0.5, 0.5], [0.5, 1]]


def test_jitter_is_bounded_and_reproducible():
    positions = jittered_raster(20, 20, 3.0, 0.5, np.random.default_rng(1))
    offsets = positions - raster(20, 20, 3.0)
    assert np.abs(offsets).max() <= 0.5
    assert np.unique(offsets).size == offsets.size
    assert (positions == jittered_raster(20, 20, 3.0, 0.5, np.random.default_rng(1))).all()


def test_drift_is_slow_and_as_large_as_asked_for():
    drift = random_drift(400, 2.0, np.random.default_rng(0))
    assert np.sqrt((drift**2).mean()) == pytest.approx(2.0)
    assert drift.mean() == pytest.approx(0, abs=1e-9)
    assert np.diff(drift).std() < 0.3
    assert random_drift(1, 2.0, np.random.default_rng(0)).tolist() == [0.0]
    assert not random_drift(5, 0.0, np.random.default_rng(0)).any()


def test_spiral_is_as_dense_as_a_raster_of_the_same_step():
    step = 2.0
    radius = np.linalg.norm(fermat_spiral(2000, step), axis=1)
    for limit in (20.0, 40.0):
        assert (radius <= limit).sum() * step**2 == pytest.approx(np.pi * limit**2, rel=0.01)


def test_spiral_has_no_close_pairs():
    positions = fermat_spiral(500, 1.0)
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    assert distances[~np.eye(500, dtype=bool)].min() > 0.5


@pytest.mark.parametrize(
    "refused",
    [
        lambda: raster(0, 3, 1.0),
        lambda: raster(3, 3, 0.0),
        lambda: fermat_spiral(0, 1.0),
        lambda: fermat_spiral(3, float("nan")),
    ],
)
def test_impossible_scans_are_refused(refused):
    with pytest.raises(ValueError, match=r"must be|needs at least"):
        refused()
