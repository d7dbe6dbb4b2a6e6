"""The resolution read off a Siemens star, on stars whose resolution is known."""

import numpy as np
import pytest
from scipy import ndimage

from operators.optics.samples import object_from_texture, siemens_star
from tests.benchmarks.network.resolution import (
    FINEST_PX,
    N_SPOKES,
    RADII_PX,
    half_pitch_px,
    resolved_half_pitch_px,
)

SHAPE = 256, 256
WEAK = 0.2j  # so that the phase of a low-passed object is its low-passed phase


@pytest.fixture(scope="module")
def star() -> np.ndarray:
    return object_from_texture(siemens_star(SHAPE, N_SPOKES), WEAK)


def low_passed(object_: np.ndarray, half_pitch: float) -> np.ndarray:
    """Without spatial frequencies whose half-period is shorter than so many pixels."""
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(SHAPE[0]), np.fft.fftfreq(SHAPE[1]), indexing="ij"))
    return np.fft.ifft2(np.fft.fft2(object_) * (frequencies < 0.5 / half_pitch)).astype(np.complex64)


@pytest.mark.parametrize("half_pitch", [1.3, 2.0, 3.0, 5.0])
def test_what_a_low_pass_leaves_is_what_is_resolved(star: np.ndarray, half_pitch: float) -> None:
    assert resolved_half_pitch_px(low_passed(star, half_pitch), star) == pytest.approx(half_pitch, rel=0.1)


def test_nothing_finer_than_the_pixel_is_claimed(star: np.ndarray) -> None:
    assert resolved_half_pitch_px(star, star) == FINEST_PX == 1.0
    assert half_pitch_px(RADII_PX[-1], N_SPOKES) == pytest.approx(FINEST_PX)


def test_a_star_without_spokes_is_not_resolved(star: np.ndarray) -> None:
    coarsest = half_pitch_px(RADII_PX[0], N_SPOKES)
    assert resolved_half_pitch_px(np.ones_like(star), star) == coarsest
    assert resolved_half_pitch_px(ndimage.gaussian_filter(star, 10.0), star) == coarsest


def test_spokes_of_the_wrong_sign_are_not_resolved(star: np.ndarray) -> None:
    assert resolved_half_pitch_px(star.conj(), star) == half_pitch_px(RADII_PX[0], N_SPOKES)
