import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.geometry import Bounds, Geometry, lie_far_apart, probe_positions, window_corners

SIEMENS = {"energy_ev": 8800.0, "detector_distance_m": 1.92, "detector_pixel_m": 75e-6, "n_pixels": 128}


def test_object_pixel_of_the_siemens_scan():
    geometry = Geometry(**SIEMENS)
    assert geometry.wavelength_m == pytest.approx(1.40891e-10, rel=1e-5)
    assert geometry.object_pixel_m == pytest.approx(28.178e-9, rel=1e-4)


def test_metres_and_pixels_are_inverse():
    geometry = Geometry(**SIEMENS)
    positions_m = np.array([[0.0, -1e-6], [2.5e-7, 3e-6]])
    np.testing.assert_allclose(geometry.to_metres(geometry.to_pixels(positions_m)), positions_m)
    np.testing.assert_allclose(geometry.to_pixels(np.array([[geometry.object_pixel_m, 0]])), [[1, 0]])


@pytest.mark.parametrize("name", SIEMENS)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_geometry_names_the_value_it_refuses(name, value):
    with pytest.raises(ValueError, match=f"{name} must be finite and positive"):
        Geometry(**{**SIEMENS, name: value})


def test_fractional_pixel_count_is_refused():
    with pytest.raises(ValueError, match=r"whole number, got 128\.5"):
        Geometry(**{**SIEMENS, "n_pixels": 128.5})


def test_nearest_corner_does_not_depend_on_a_common_whole_offset(xp):
    positions_px = xp.asarray([[-1.5, -0.5], [0.5, 1.5], [2.49, -2.51]])
    corners = window_corners(positions_px)
    assert corners.dtype == np.int64
    assert to_numpy(corners).tolist() == [[-1, 0], [1, 2], [2, -3]]
    assert bool((window_corners(positions_px + 7) == corners + 7).all())


def test_bounds_cover_every_pixel_of_every_window(xp):
    bounds = Bounds.of_windows(xp.asarray([[-3, 4], [5, -1], [0, 0]]), 8)
    assert bounds == Bounds(-3, -1, 13, 12)
    assert bounds.shape == (16, 13)
    assert bounds.origin == (-3, -1)


def test_bounds_of_no_windows_are_refused():
    with pytest.raises(ValueError, match="at least one corner"):
        Bounds.of_windows(np.empty((0, 2), np.int64), 8)


def test_slices_keep_the_meaning_of_a_pixel_when_a_canvas_grows():
    small = Bounds(-2, 3, 4, 8)
    large = small.union(Bounds(0, -5, 10, 0)).padded(2)
    rows, columns = np.mgrid[large.top : large.bottom, large.left : large.right]
    selected = small.slices_in(large)
    assert large.contains(small)
    assert (rows[selected][0, 0], columns[selected][0, 0]) == small.origin
    assert rows[selected].shape == small.shape


def test_windows_lie_far_apart_where_they_cover_little_of_the_box_around_them():
    assert not lie_far_apart(np.array([[0, 0]]), 8)
    assert not lie_far_apart(np.array([[0, 0], [8, 8]]), 8)
    assert lie_far_apart(np.array([[0, 0], [100, 100]]), 8)


def test_slices_outside_are_refused():
    with pytest.raises(ValueError, match="reaches outside"):
        Bounds(-1, 0, 4, 4).slices_in(Bounds(0, 0, 4, 4))


def test_empty_bounds_are_refused():
    with pytest.raises(ValueError, match="at least one pixel"):
        Bounds(0, 0, 0, 4)


@pytest.mark.parametrize(("unit", "metres"), [("m", 2.0), ("mm", 2e-3), ("um", 2e-6), ("nm", 2e-9)])
def test_positions_become_metres_with_the_sign_of_each_axis(xp, unit, metres):
    positions_m = probe_positions(xp.asarray([[1.0, 2.0]]), unit=unit, signs=(1, -1))
    np.testing.assert_allclose(to_numpy(positions_m), [[metres / 2, -metres]])


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        ([[0.0, 0.0]], {"unit": "micron"}, "got 'micron'"),
        ([[0.0, 0.0]], {"unit": "m", "signs": (1, 0)}, "signs"),
        ([[0.0, 0.0]], {"unit": "m", "signs": (1, 1, 1)}, "signs"),
        ([[0.0, 0.0, 0.0]], {"unit": "m"}, r"\(1, 3\)"),
        ([[0.0, 0.0], [float("nan"), 0.0], [0.0, float("inf")]], {"unit": "m"}, "2 of 3 .* index 1"),
    ],
)
def test_unusable_positions_are_refused(raw, options, message):
    with pytest.raises(ValueError, match=message):
        probe_positions(np.array(raw), **options)
