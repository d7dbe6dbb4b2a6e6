import numpy as np
import pytest

from operators.geometry import Bounds
from operators.mosaic.scan_maps import MAPS, integrated, on_pixels, placed, scan_maps, scan_step_px

N, STEP = 64, 6.0
BOUNDS = Bounds(-10, 20, 110, 140)


def positions(step: float = STEP) -> np.ndarray:
    """A raster inside the bounds, with a little scatter."""
    rng = np.random.default_rng(3)
    y, x = np.meshgrid(np.arange(0, 100, step), np.arange(30, 130, step), indexing="ij")
    return np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-0.5, 0.5, (y.size, 2))


def hill(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return 2 * np.exp(-((y - 50) ** 2 + (x - 80) ** 2) / (2 * 15**2))


def test_the_step_is_that_of_neighbours_in_whatever_order_they_come():
    raster = positions()
    assert scan_step_px(raster) == pytest.approx(STEP, rel=0.2)
    shuffled = np.random.default_rng(0).permutation(raster)
    assert scan_step_px(shuffled) == pytest.approx(STEP, rel=0.2)
    assert scan_step_px(raster[:5]) == pytest.approx(STEP, rel=0.2)  # one line
    assert scan_step_px(raster[:1]) == scan_step_px(raster[:0]) == 1.0
    assert scan_step_px(np.zeros((4, 2))) == 1.0  # a stage that stands


def test_a_value_lies_where_its_probe_was_and_nothing_far_from_all():
    centres = positions()
    (rows,) = placed(centres[:, :1].astype(np.float32), centres, BOUNDS, STEP / 2)
    on = on_pixels(rows, STEP / 2, BOUNDS.shape)
    for y, x in centres[::7]:
        assert on[int(y) - BOUNDS.top, int(x) - BOUNDS.left] == pytest.approx(y, abs=STEP)
    assert np.isnan(on[-1, -1])


def test_values_that_are_not_finite_are_left_out():
    centres, values = positions(), np.ones((len(positions()), 1), np.float32)
    values[10] = np.nan
    (found,) = placed(values, centres, BOUNDS, STEP / 2)
    assert np.nanmax(np.abs(found - 1)) < 1e-6


def test_the_integral_of_a_gradient_is_what_it_is_the_gradient_of():
    y, x = np.indices((60, 50)).astype(np.float64)
    truth = np.exp(-((y - 25) ** 2 + (x - 30) ** 2) / 80) + 0.5 * np.exp(-((y - 55) ** 2 + (x - 5) ** 2) / 50)
    gradient_y, gradient_x = (g.astype(np.float32) for g in np.gradient(truth))
    found = integrated(gradient_y, gradient_x)
    level = truth - truth.mean()
    # Without the mean gradient: a plane is left out.
    plane = np.stack([np.ones(y.size), y.ravel(), x.ravel()], axis=1)
    difference = (found - level).ravel()
    difference -= plane @ np.linalg.lstsq(plane, difference, rcond=None)[0]
    assert np.sqrt(np.mean(difference**2)) < 0.05 * level.std()


def test_dpc_of_a_scan_is_the_phase_that_its_patterns_are_deflected_by():
    centres = positions(3.0)
    y, x = centres.T
    slope = 1e-3
    gradient = np.stack(
        [(hill(y + slope, x) - hill(y, x)) / slope, (hill(y, x + slope) - hill(y, x)) / slope], axis=1
    )
    moments = np.column_stack([np.full(len(y), 1e5), gradient * N / (2 * np.pi), np.full(len(y), 9.0)])
    maps, cell_px = scan_maps(moments.astype(np.float32), centres, BOUNDS, N)
    assert tuple(maps) == MAPS
    known = np.isfinite(maps["dpc"])
    rows, columns = np.nonzero(known)
    truth = hill((rows + 0.5) * cell_px + BOUNDS.top, (columns + 0.5) * cell_px + BOUNDS.left)
    assert np.corrcoef(truth, maps["dpc"][known])[0, 1] > 0.99
    assert np.ptp(maps["dpc"][known]) == pytest.approx(2, rel=0.15)
    assert maps["intensity"][known] == pytest.approx(1e5)


def test_a_scan_of_one_frame_has_maps():
    maps, _ = scan_maps(np.ones((1, 4), np.float32), np.array([[50.0, 80.0]]), BOUNDS, N)
    assert np.nanmax(maps["intensity"]) == 1


def test_a_scan_of_no_frame_has_maps_of_nothing():
    maps, _ = scan_maps(np.zeros((0, 4), np.float32), np.zeros((0, 2)), BOUNDS, N)
    assert all(np.isnan(values).all() for values in maps.values())
