import numpy as np
import pytest

from operators.optics.moments import MOMENTS, moments

N = 32


def spot(row: float, column: float, width: float, photons: float) -> np.ndarray:
    """A round pattern, zero frequency in the corner."""
    y, x = np.meshgrid(*2 * [np.fft.fftfreq(N) * N], indexing="ij")
    bell = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2))
    return (photons * bell / bell.sum()).astype(np.float32)


def test_photons_centroid_and_width_are_those_of_the_pattern():
    found = moments(np.stack([spot(0, 0, 2, 1e4), spot(3, -2, 3, 5e3)]))
    assert found.dtype == np.float32
    assert found.shape == (2, len(MOMENTS))
    np.testing.assert_allclose(found[0], [1e4, 0, 0, 2 * np.sqrt(2)], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1], [5e3, 3, -2, 3 * np.sqrt(2)], rtol=1e-3, atol=1e-3)


def test_what_is_not_valid_is_dark():
    pattern, mask = spot(3, -2, 3, 5e3), np.ones((N, N), bool)
    mask[5, 7], pattern[5, 7] = False, 1e9
    np.testing.assert_allclose(moments(pattern[None], mask)[0], [5e3, 3, -2, 3 * np.sqrt(2)], rtol=2e-3)


def test_a_dark_frame_has_no_centroid():
    assert moments(np.zeros((1, N, N), np.float32)).tolist() == [[0, 0, 0, 0]]


def test_a_gradient_of_phase_moves_the_centroid_by_as_much():
    n, gradient = 64, np.array([0.2, -0.1])  # rad per object pixel
    y, x = np.indices((n, n)) - n // 2
    exit_wave = np.exp(-(y**2 + x**2) / 200 + 1j * (gradient[0] * y + gradient[1] * x))
    pattern = np.abs(np.fft.fft2(exit_wave)) ** 2
    _, *centroid, _ = moments(pattern[None].astype(np.float32))[0]
    assert 2 * np.pi * np.array(centroid) / n == pytest.approx(gradient, rel=1e-3)
