import numpy as np
import pytest

from operators.optics.phase_screen import phase_screen


def test_a_phase_screen_has_the_roughness_and_grain_asked_for():
    screen = phase_screen((128, 128), 0.5, 2.0, np.random.default_rng(0))
    assert screen.dtype == np.complex64
    np.testing.assert_allclose(np.abs(screen), 1, rtol=1e-5)
    phase = np.angle(screen)
    assert phase.std() == pytest.approx(0.5, rel=1e-3)
    # Noise smoothed by a Gaussian of standard deviation s correlates as exp(-d^2 / 4 s^2).
    assert (phase * np.roll(phase, 2, 0)).mean() / 0.25 == pytest.approx(np.exp(-0.25), abs=0.05)
    flat = phase_screen((128, 128), 0.0, 2.0, np.random.default_rng(0))
    np.testing.assert_array_equal(flat, 1)
