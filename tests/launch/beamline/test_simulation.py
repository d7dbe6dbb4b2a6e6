import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from operators.arrays import abs2
from operators.geometry import window_corners
from operators.optics.forward import intensities
from operators.patches import extract_patches

SMALL = Simulation(n_rows=3, n_columns=4, seed=5)


def test_frames_are_what_object_and_probe_give_at_the_positions():
    scan = simulate_scan(SMALL)
    corners = window_corners(scan.geometry.to_pixels(scan.positions_m))
    expected = intensities(scan.probe, extract_patches(scan.object, corners, scan.geometry.n_pixels))
    deviation = np.fft.ifftshift(scan.frames, axes=(-2, -1)) - expected
    assert scan.frames.dtype == np.uint16
    # Poisson: squared deviations are as large as the expectation.
    assert (deviation**2).sum() / expected.sum() == pytest.approx(1.0, abs=0.05)


def test_the_probe_holds_the_photons_of_a_frame():
    scan = simulate_scan(SMALL)
    assert abs2(scan.probe).sum() == pytest.approx(4e5, rel=1e-5)
    assert 0.5 * 4e5 < scan.frames.sum(axis=(1, 2)).mean() < 4e5


def test_rows_are_scanned_to_and_fro():
    x = simulate_scan(SMALL).positions_m.reshape(3, 4, 2)[..., 1]
    assert (np.sign(np.diff(x, axis=1)) == [[1], [-1], [1]]).all()


def test_the_same_seed_gives_the_same_scan_and_another_a_different_one():
    first, again = simulate_scan(SMALL), simulate_scan(SMALL)
    np.testing.assert_array_equal(first.frames, again.frames)
    other = simulate_scan(Simulation(n_rows=3, n_columns=4, seed=6))
    assert not np.array_equal(first.object[:80, :80], other.object[:80, :80])


def test_more_counts_than_the_detector_holds_are_refused():
    with pytest.raises(ValueError, match="16-bit detector holds 65535: use fewer"):
        simulate_scan(Simulation(n_rows=1, n_columns=1, photons_per_frame=4e8))
