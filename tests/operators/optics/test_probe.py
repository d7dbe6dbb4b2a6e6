import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.optics.probe import (
    curvature_of_disc,
    kb_mirror_probe,
    orthogonalise_modes,
    phase_ramp,
    probe_diameter_px,
    probe_from_mean,
    probe_fwhm_px,
    probe_modes,
    probe_tilt,
    pupil_radius_px,
    with_power,
    zone_plate_probe,
)


def power(probe):
    return float((np.abs(probe) ** 2).sum())


def far_field(probe):
    return np.abs(np.fft.fft2(probe, norm="ortho")) ** 2


@pytest.mark.parametrize("n_pixels", [32, 64, 128])
def test_zone_plate_probe_has_unit_power_in_the_middle_of_its_window(n_pixels):
    probe = zone_plate_probe(n_pixels, n_pixels * 12 / 64, n_pixels * 14 / 64)
    assert probe.shape == (n_pixels, n_pixels)
    assert probe.dtype == np.complex64
    assert power(probe) == pytest.approx(1, rel=1e-5)
    weights = np.abs(probe) ** 2
    centre = [(axis * weights).sum() for axis in np.indices(probe.shape)]
    np.testing.assert_allclose(centre, n_pixels / 2, atol=0.5)


def test_its_far_field_is_the_pupil_in_the_corner():
    pattern = far_field(zone_plate_probe(64, 12.0, 14.0))
    frequency = np.fft.fftfreq(64) * 64
    radius = np.hypot(frequency[:, None], frequency)
    assert pattern[radius < 9].min() > 0.9 * pattern.max()
    assert pattern[radius > 16].sum() < 0.01 * pattern.sum()
    assert pupil_radius_px(pattern) == pytest.approx(12, rel=0.05)


def test_a_central_stop_leaves_the_middle_of_the_pupil_dark():
    pattern = far_field(zone_plate_probe(64, 20.0, 10.0, central_stop=0.5))
    assert pattern[0, 0] < 1e-3 * pattern.max()
    assert pattern[0, 15] > 0.5 * pattern.max()


def test_defocus_spreads_the_light_over_the_geometrical_disc():
    """A disc of radius R has the full width 2 R at half maximum; a focus is diffraction-limited."""
    focused = zone_plate_probe(128, 24.0, 0.0)
    defocused = zone_plate_probe(128, 24.0, 28.0)
    assert probe_fwhm_px(focused) < 6
    weights = np.abs(defocused) ** 2
    rms = np.sqrt(sum(((axis - 64) ** 2 * weights).sum() for axis in np.indices(weights.shape)))
    assert rms == pytest.approx(28 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize(("pupil", "stop"), [(0, 0), (40, 0), (12, 1.0), (12, -0.1)])
def test_pupils_that_do_not_fit_are_refused(pupil, stop):
    with pytest.raises(ValueError, match="pupil_radius_px <= 32 and 0 <= central_stop < 1"):
        zone_plate_probe(64, pupil, 10.0, central_stop=stop)


def test_mirrors_light_a_rectangle_on_the_detector_and_another_on_the_sample():
    probe = kb_mirror_probe(128, (24.0, 16.0), (20.0, 30.0))
    assert probe.dtype == np.complex64
    assert power(probe) == pytest.approx(1, rel=1e-5)
    pattern = np.fft.fftshift(far_field(probe))
    widths = [(profile > 0.5 * profile.max()).sum() for profile in (pattern[:, 64], pattern[64])]
    assert widths == pytest.approx([48, 32], abs=2)
    weights = np.abs(probe) ** 2
    spread = [np.sqrt(((axis - 64) ** 2 * weights).sum()) for axis in np.indices(weights.shape)]
    np.testing.assert_allclose(spread, np.array([20, 30]) / np.sqrt(3), rtol=0.1)


def test_mirrors_in_focus_make_a_sinc():
    profile = np.abs(kb_mirror_probe(128, (16.0, 16.0), (0.0, 0.0))[64])
    sinc = np.abs(np.sinc(2 * 16 * (np.arange(128) - 64) / 128))
    np.testing.assert_allclose(profile / profile.max(), sinc, atol=0.03)
    with pytest.raises(ValueError, match="pupil_half_widths_px <= 32"):
        kb_mirror_probe(64, (12.0, 40.0), (0.0, 0.0))


def test_the_probe_of_a_mean_pattern_has_its_modulus_and_the_curvature():
    probe = zone_plate_probe(64, 12.0, 14.0)
    pattern = 1e5 * far_field(probe)
    found = probe_from_mean(pattern, curvature_of_disc(14.0, 12.0, 64))
    assert power(found) == pytest.approx(1e5, rel=1e-4)
    overlap = abs(np.vdot(found, probe)) / np.sqrt(power(found))
    assert overlap == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(far_field(found), pattern, atol=1e-3 * pattern.max())


def test_modes_start_orthogonal_with_the_shares_asked_for():
    probe = 10 * zone_plate_probe(64, 12.0, 14.0)
    modes = probe_modes(probe, 3, power=0.02)
    assert modes.shape == (3, 64, 64)
    shares = [power(mode) / power(probe) for mode in modes]
    np.testing.assert_allclose(shares, [0.96, 0.02, 0.02], rtol=1e-4)
    overlaps = np.abs(modes.reshape(3, -1).conj() @ modes.reshape(3, -1).T)
    assert np.abs(overlaps - np.diag(np.diag(overlaps))).max() < 0.01 * power(probe)
    np.testing.assert_allclose(probe_modes(probe, 1)[0], probe, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n_modes", "share"), [(0, 0.02), (60, 0.02), (2, 0.0)])
def test_modes_that_leave_no_power_are_refused(n_modes, share):
    with pytest.raises(ValueError, match="n_modes >= 1"):
        probe_modes(zone_plate_probe(32, 6.0, 7.0), n_modes, share)


def test_power_is_set_over_all_modes(xp):
    probe = xp.asarray(probe_modes(zone_plate_probe(32, 6.0, 7.0), 2))
    scaled = with_power(probe, 5e4)
    assert scaled.dtype == xp.complex64
    assert power(to_numpy(scaled)) == pytest.approx(5e4, rel=1e-4)


def test_orthogonal_modes_give_the_same_patterns_strongest_mode_first(xp):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 16, 16)) + 1j * rng.standard_normal((3, 16, 16))
    mixed = xp.asarray((values + values[:1]).astype(np.complex64))
    modes = orthogonalise_modes(mixed)
    flat = to_numpy(modes).reshape(3, -1)
    overlaps = np.abs(flat.conj() @ flat.T)
    assert np.abs(overlaps - np.diag(np.diag(overlaps))).max() < 1e-4 * overlaps.max()
    assert np.all(np.diff(np.diag(overlaps)) <= 0)
    before, after = (sum(far_field(mode) for mode in to_numpy(probe)) for probe in (mixed, modes))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)


def test_a_ramp_adds_its_slope_to_the_tilt_of_a_probe_however_its_modes_are_mixed(xp):
    modes = xp.asarray(probe_modes(zone_plate_probe(32, 6, 8), 3))
    slope = xp.asarray([0.05, -0.11], xp.float32)
    mixed = xp.stack([modes[0] * 0.6 + modes[1] * 0.8, modes[0] * 0.8 - modes[1] * 0.6, modes[2] * 1j])
    tilted = mixed * phase_ramp((32, 32), slope)
    np.testing.assert_allclose(to_numpy(probe_tilt(tilted) - probe_tilt(modes)), to_numpy(slope), atol=1e-5)


def test_width_is_that_of_the_disc_of_the_same_area():
    probe = np.zeros((64, 64), np.complex64)
    y, x = np.indices(probe.shape)
    probe[np.hypot(y - 32, x - 32) < 10] = 1
    assert probe_fwhm_px(probe) == pytest.approx(20, rel=0.02)
    assert probe_fwhm_px(np.stack([probe, probe])) == pytest.approx(20, rel=0.02)


def test_the_diameter_holds_the_light_that_the_half_maximum_leaves_out():
    disc = np.zeros((2, 64, 64), np.complex64)
    disc[0, 20:30, 20:30] = 1
    assert probe_diameter_px(disc, share=1.0) == pytest.approx(2 * np.sqrt(100 / np.pi))
    defocused = zone_plate_probe(64, 12, 14)[None]
    assert probe_fwhm_px(defocused) < probe_diameter_px(defocused) == pytest.approx(28, abs=0.5)
