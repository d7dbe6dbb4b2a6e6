import numpy as np
import pytest

from operators.arrays import abs2, fft2, to_numpy
from operators.metrics.errors import fourier_ring_correlation, nrmse, phase_correlation_coefficient
from operators.metrics.gauge import Gauge, find_gauge, flattened, remove_gauge
from operators.optics.probe import phase_ramp, zone_plate_probe
from tests.helpers.recorded_data import SHARED_DATA, needs_shared_data

SHAPE = (96, 110)
INSIDE = (slice(12, -12), slice(12, -12))


def continuous_object(row, column):
    """An object known between pixels, so that a shifted copy needs no interpolation."""
    rng = np.random.default_rng(7)
    blobs = zip(rng.uniform(-10, 120, 120), rng.uniform(-10, 120, 120), rng.uniform(2, 6, 120), strict=True)
    phase = sum(np.exp(-((row - y) ** 2 + (column - x) ** 2) / s**2) for y, x, s in blobs)
    return (1 - 0.1 * phase) * np.exp(0.8j * phase)


def in_gauge(gauge, noise=0.0, seed=0):
    """The continuous object as a reconstruction in another gauge would show it."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    (dy, dx), (ky, kx) = gauge.shift_px, gauge.ramp
    rng = np.random.default_rng(seed)
    error = noise * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE))
    ramp = np.exp(2j * np.pi * (ky * row + kx * column))
    return gauge.factor * continuous_object(row - dy, column - dx) * ramp + error


GAUGES = [
    Gauge(),
    Gauge(factor=np.exp(2j)),
    Gauge(ramp=(0.013, -0.041)),
    Gauge(shift_px=(2.25, -0.6)),
    Gauge(shift_px=(-7.4, 5.1), ramp=(-0.11, 0.027), factor=np.exp(-1j)),
]


@pytest.mark.parametrize("gauge", GAUGES, ids=str)
def test_a_known_gauge_is_found_and_removed(xp, gauge):
    truth, other = xp.asarray(in_gauge(Gauge())), xp.asarray(in_gauge(gauge))
    found = find_gauge(other, truth)
    np.testing.assert_allclose(found.shift_px, gauge.shift_px, atol=0.02)
    np.testing.assert_allclose(found.ramp, gauge.ramp, atol=2e-5)
    assert abs(found.factor) == pytest.approx(1)
    assert nrmse(found.remove_from(other)[INSIDE], truth[INSIDE]).c < 0.02


def test_a_flattened_object_has_no_ramp_and_its_patterns_stay_where_the_probe_takes_it(xp):
    object_ = xp.asarray(in_gauge(Gauge(ramp=(0.013, -0.041))).astype(np.complex64))
    known = xp.zeros(SHAPE, bool)
    known[5:-5, 7:-7] = True
    flat, slope = flattened(xp.where(known, object_, xp.nan), known)
    np.testing.assert_allclose(to_numpy(slope) / (2 * np.pi), (0.013, -0.041), atol=2e-3)
    np.testing.assert_allclose(to_numpy(flattened(flat, known)[1]), 0, atol=1e-5)
    probe = xp.asarray(zone_plate_probe(32, 6, 7)[None])
    turned = probe * phase_ramp(probe.shape[1:], slope)
    window = slice(20, 52), slice(30, 62)
    before, after = (to_numpy(abs2(fft2(p * o[window]))) for p, o in ((probe, object_), (turned, flat)))
    np.testing.assert_allclose(after, before, atol=1e-4 * before.max())


def test_noisy_halves_agree_only_after_their_gauge_is_removed(xp):
    gauge = GAUGES[-1]
    a = xp.asarray(in_gauge(gauge, noise=0.2, seed=1))
    b = xp.asarray(in_gauge(Gauge(), noise=0.2, seed=2))
    same_gauge = xp.asarray(in_gauge(Gauge(), noise=0.2, seed=1))
    removed = remove_gauge(a, b)[INSIDE]
    attainable = fourier_ring_correlation(same_gauge[INSIDE], b[INSIDE]).crossing(0.5)
    assert fourier_ring_correlation(removed, b[INSIDE]).crossing(0.5) == pytest.approx(attainable, abs=0.01)
    assert fourier_ring_correlation(a[INSIDE], b[INSIDE]).crossing(0.5) < 0.25 * attainable
    best = phase_correlation_coefficient(same_gauge[INSIDE], b[INSIDE])
    assert phase_correlation_coefficient(removed, b[INSIDE]) == pytest.approx(best, abs=0.03)


def test_what_is_not_asked_for_stays(xp):
    truth = xp.asarray(in_gauge(Gauge()))
    ramped, moved = xp.asarray(in_gauge(GAUGES[2])), xp.asarray(in_gauge(GAUGES[3]))
    assert find_gauge(ramped, truth, ramp=False).ramp == (0, 0)
    assert nrmse(remove_gauge(ramped, truth, ramp=False, shift=False), truth).c > 0.5
    assert find_gauge(moved, truth, shift=False).shift_px == (0, 0)
    assert nrmse(remove_gauge(moved, truth, ramp=False, shift=False)[INSIDE], truth[INSIDE]).c > 0.2


def test_a_scale_is_removed_only_on_request(xp):
    truth = xp.asarray(in_gauge(Gauge()))
    assert abs(find_gauge(1.7 * truth, truth).factor) == pytest.approx(1)
    assert find_gauge(1.7j * truth, truth, scale=True).factor == pytest.approx(1.7j, rel=1e-3)


def test_weights_keep_unscanned_garbage_out(xp):
    gauge = GAUGES[-1]
    other = in_gauge(gauge)
    rng = np.random.default_rng(3)
    other[:, 70:] = 5 * np.exp(1j * rng.uniform(0, 6, (96, 40)))
    weights = np.zeros(SHAPE)
    weights[10:-10, 10:60] = 1
    found = find_gauge(xp.asarray(other), xp.asarray(in_gauge(Gauge())), weights=xp.asarray(weights))
    np.testing.assert_allclose(found.shift_px, gauge.shift_px, atol=0.05)
    np.testing.assert_allclose(found.ramp, gauge.ramp, atol=1e-4)


@pytest.mark.parametrize("wrong", [np.conj, np.flipud], ids=["twin", "flip"])
def test_no_gauge_makes_a_wrong_object_right(xp, wrong):
    truth = in_gauge(Gauge())
    bad = remove_gauge(xp.asarray(np.ascontiguousarray(wrong(truth))), xp.asarray(truth))
    assert nrmse(bad[INSIDE], xp.asarray(truth)[INSIDE]).c > 0.9


def test_precision_and_shape_are_kept(xp):
    truth = xp.asarray(in_gauge(Gauge()).astype(np.complex64))
    removed = remove_gauge(truth, truth)
    assert (removed.dtype, removed.shape) == (np.complex64, SHAPE)
    np.testing.assert_allclose(to_numpy(removed), to_numpy(truth), atol=1e-3)


def test_pictures_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="equal shape"):
        find_gauge(np.ones((8, 8)), np.ones((8, 9)))


@needs_shared_data
def test_the_siemens_reference_is_recognised_moved_ramped_and_noisy():
    object_ = np.load(SHARED_DATA / "siemens" / "reference.npz")["O"]
    reference, moved = object_[130:330, 130:330], object_[127:327, 135:335]  # by (3, -5)
    row, column = np.mgrid[:200, :200]
    rng = np.random.default_rng(4)
    level = 0.1 * np.abs(reference).mean()
    noise = level * (rng.normal(size=(200, 200)) + 1j * rng.normal(size=(200, 200)))
    other = moved * np.exp(2j * np.pi * (0.0137 * row - 0.0211 * column) + 1j) + noise
    found = find_gauge(other, reference)
    np.testing.assert_allclose(found.shift_px, (3, -5), atol=0.05)
    np.testing.assert_allclose(found.ramp, (0.0137, -0.0211), atol=1e-4)
    removed, inside = found.remove_from(other), (slice(10, -10), slice(10, -10))
    assert phase_correlation_coefficient(removed[inside], reference[inside]) > 0.9
    assert phase_correlation_coefficient(other[inside], reference[inside]) < 0.3
    after = fourier_ring_correlation(removed[inside], reference[inside]).crossing(0.5)
    before = fourier_ring_correlation(other[inside], reference[inside]).crossing(0.5)
    assert after > 5 * before
