import numpy as np
import pytest

from operators.arrays import centre_origin, to_numpy
from operators.geometry import window_corners
from operators.metrics.errors import (
    FRC,
    align_phase,
    amplitude_error,
    fourier_ring_correlation,
    nrmse,
    phase_correlation_coefficient,
)
from operators.optics.forward import simulate_counts
from operators.optics.preprocess import Preprocess
from tests.helpers.recorded_data import SHARED_DATA, needs_shared_data


@pytest.fixture
def truth():
    """An object without any symmetry, of correlated amplitude and phase."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:60, :64]
    blobs = zip(rng.uniform(0, 60, 90), rng.uniform(0, 64, 90), rng.uniform(1.5, 4, 90), strict=True)
    phase = sum(np.exp(-((row - y) ** 2 + (column - x) ** 2) / s**2) for y, x, s in blobs)
    return ((1 - 0.1 * phase) * np.exp(0.5j * phase)).astype(np.complex64)


def white(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def test_aligned_phase_is_the_closest_one(xp, truth):
    rng = np.random.default_rng(1)
    a, b = xp.asarray(truth * np.exp(2j) + 0.1 * white(rng, 60, 64)), xp.asarray(truth)
    aligned = align_phase(a, b)
    errors = [float((abs(aligned * np.exp(1j * turn) - b) ** 2).sum()) for turn in (-0.01, 0.0, 0.01)]
    assert errors[1] == min(errors)


def test_nrmse_ignores_a_global_phase_and_nothing_else(xp, truth):
    o = xp.asarray(truth)
    ramp = xp.exp(0.05j * xp.arange(64))
    assert nrmse(o * np.exp(1.3j), o).c < 1e-6
    assert nrmse(o * ramp, o).c > 0.5
    assert nrmse(xp.roll(o, 2, axis=0), o).c > 0.3
    assert nrmse(o * 1.1, o).c == pytest.approx(0.1 * nrmse(o * 0, o).c, rel=1e-6)


def test_a_constant_object_scores_one_however_good_it_looks_by_the_loose_measure(xp, truth):
    o = xp.asarray(truth)
    score = nrmse(xp.full_like(o, o.mean()), o)
    assert score.c == pytest.approx(1, abs=1e-4)
    assert score.loose < 0.6
    assert nrmse(xp.ones_like(o), o).c >= score.c


def test_weights_restrict_the_score_to_the_scanned_region(xp, truth):
    o = xp.asarray(truth)
    scanned = xp.zeros(o.shape, bool)
    scanned[10:50, 10:50] = True
    garbage = xp.where(scanned, o * np.exp(1j), 100)
    assert nrmse(garbage, o, scanned).c < 1e-6
    inside = o[10:50, 10:50]
    assert nrmse(o * 0, o, scanned).c == pytest.approx(nrmse(inside * 0, inside).c, rel=1e-6)


@pytest.mark.parametrize(
    "wrong", [np.conj, np.flipud, np.fliplr, np.transpose], ids=["twin", "row flip", "column flip", "swap"]
)
def test_a_wrong_object_scores_badly_by_every_measure(xp, truth, wrong):
    o = xp.asarray(truth[:, :60])
    bad = xp.asarray(np.ascontiguousarray(wrong(truth[:, :60])))
    assert nrmse(bad, o).c > 0.9, "hardly better than a constant"
    assert phase_correlation_coefficient(bad, o) < 0.3
    # The lowest ring is the mean: the windows agree, whatever is in them.
    assert float(fourier_ring_correlation(bad, o).correlation[4:].mean()) < 0.5


def test_phase_correlation_is_plus_one_for_the_object_and_minus_one_for_its_twin(xp, truth):
    o = xp.asarray(truth)
    assert phase_correlation_coefficient(o * np.exp(3j), o) == pytest.approx(1, abs=1e-6)
    assert phase_correlation_coefficient(o.conj(), o) == pytest.approx(-1, abs=1e-6)


def test_phase_correlation_looks_only_at_the_mask(xp, truth):
    o = xp.asarray(truth)
    mask = xp.zeros(o.shape, bool)
    mask[20:40, 20:40] = True
    assert phase_correlation_coefficient(xp.where(mask, o, -1j), o, mask) == pytest.approx(1, abs=1e-6)


def test_ring_correlation_of_noisy_halves_is_signal_over_signal_and_noise(xp):
    rng = np.random.default_rng(2)
    signal = white(rng, 128, 160)
    halves = [xp.asarray(signal + 0.5 * white(rng, 128, 160)) for _ in range(2)]
    frc = fourier_ring_correlation(*halves)
    assert to_numpy(frc.frequency)[[0, -1]].tolist() == [0, 0.5]
    assert float(frc.correlation[20:].mean()) == pytest.approx(1 / 1.25, abs=0.01)


def test_ring_correlation_of_equals_is_one_and_of_strangers_zero(xp):
    rng = np.random.default_rng(3)
    a, b = (xp.asarray(white(rng, 96, 96)) for _ in range(2))
    np.testing.assert_allclose(to_numpy(fourier_ring_correlation(a, a).correlation), 1)
    assert abs(float(fourier_ring_correlation(a, b).correlation[10:].mean())) < 0.03


def test_ring_correlation_drops_where_the_common_band_ends(xp):
    rng = np.random.default_rng(4)
    f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
    common = np.fft.ifft2(np.fft.fft2(white(rng, 128, 128)) * (f < 0.2))
    halves = [xp.asarray(common + 0.3 * white(rng, 128, 128)) for _ in range(2)]
    assert fourier_ring_correlation(*halves).crossing(0.5) == pytest.approx(0.2, abs=0.01)


def test_ring_correlation_hides_no_gauge(xp, truth):
    o = xp.asarray(truth)
    assert float(fourier_ring_correlation(-o, o).correlation.max()) == pytest.approx(-1, abs=1e-5)


def test_crossing_interpolates_the_smoothed_correlation(xp):
    def frc(*correlation):
        rings = {"frequency": xp.arange(6) / 10, "n_pixels": xp.arange(6) * 8}
        return FRC(correlation=xp.asarray(correlation), **rings)

    falling = frc(1.0, 1.0, 0.7, 0.4, 0.1, 0.1)
    assert falling.crossing(0.5) == pytest.approx(0.2 + 0.1 * (0.7 - 0.5) / 0.3)
    assert falling.crossing(0.5 * xp.ones(6)) == falling.crossing(0.5)
    assert frc(*[1.0] * 6).crossing(0.5) == 0.5
    assert frc(*[0.0] * 6).crossing(0.5) == 0


def test_half_a_bit_is_a_high_correlation_of_few_pixels_and_a_low_one_of_many(xp):
    rng = np.random.default_rng(5)
    frc = fourier_ring_correlation(*(xp.asarray(white(rng, 64, 64)) for _ in range(2)))
    half_bit, n_pixels = to_numpy(frc.half_bit), to_numpy(frc.n_pixels)
    assert n_pixels[:2].tolist() == [1, 8]
    root = np.sqrt(n_pixels[1:])
    np.testing.assert_allclose(half_bit[1:], (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))
    assert half_bit[0] == half_bit[1] > 0.5 > half_bit[-1] > 0.2071 / 1.2071
    assert frc.crossing(frc.half_bit) < 0.05, "two strangers have no resolution"


def test_empty_pictures_do_not_correlate(xp):
    frc = fourier_ring_correlation(xp.zeros((16, 16)), xp.ones((16, 16)))
    assert not bool(frc.correlation.any())


@pytest.mark.parametrize("measure", [nrmse, phase_correlation_coefficient, fourier_ring_correlation])
def test_pictures_of_different_shape_are_refused(measure):
    with pytest.raises(ValueError, match=r"equal shape, got \(4, 5\) and \(5, 4\)"):
        measure(np.ones((4, 5)), np.ones((5, 4)))


def test_a_constant_truth_cannot_normalise():
    with pytest.raises(ValueError, match="no variation"):
        nrmse(np.ones((4, 4)), np.full((4, 4), 0.3 + 0.1j))


def test_amplitude_error_of_the_truth_is_the_poisson_floor(xp, truth):
    rng = np.random.default_rng(5)
    probe = (np.ones((1, 16, 16)) * np.exp(1j * rng.uniform(0, 6, (1, 16, 16)))).astype(np.complex64) * 20
    corners = rng.integers(0, 40, (70, 2))
    counts = simulate_counts(truth, probe, corners, rng)
    mask = np.ones((16, 16), bool)
    mask[3, 5] = False
    counts[:, 3, 5] = 10_000  # what a dead pixel says must not matter
    patterns = xp.asarray(counts.astype(np.float32))
    error = amplitude_error(patterns, xp.asarray(truth), xp.asarray(probe), corners, xp.asarray(mask))
    photons_per_pixel = counts[:, mask].mean()
    assert error == pytest.approx(0.25 / photons_per_pixel, rel=0.15)
    blank = amplitude_error(
        patterns, xp.ones_like(xp.asarray(truth)), xp.asarray(probe), corners, xp.asarray(mask)
    )
    assert blank > 20 * error


def test_amplitude_error_of_no_photons_is_refused():
    with pytest.raises(ValueError, match="no photons in 1 patterns over 16 valid pixels"):
        amplitude_error(np.zeros((1, 4, 4)), np.ones((4, 4)), np.ones((1, 4, 4)), np.zeros((1, 2), np.int64))


@needs_shared_data
def test_conventions_fit_the_siemens_scan_as_its_own_reconstruction_did():
    h5py = pytest.importorskip("h5py")
    reference = np.load(SHARED_DATA / "siemens" / "reference.npz")
    with h5py.File(SHARED_DATA / "siemens" / "siemens.cxi") as file:
        frames = file["entry_1/instrument_1/detector_1/data"][::8]
        valid = file["entry_1/instrument_1/detector_1/mask"][...] == 0
    prepare = Preprocess(frame_shape=(128, 128), n_pixels=128, valid_pixels=valid)
    object_, probe = reference["O"], reference["P"]
    corners = window_corners(reference["pos"])[::8]
    error = amplitude_error(prepare(frames), object_, probe, corners, prepare.mask)
    assert error == pytest.approx(float(reference["h"][-1]), rel=0.1)
    centred = amplitude_error(centre_origin(prepare(frames)), object_, probe, corners)
    twin = amplitude_error(prepare(frames), object_.conj(), probe, corners)
    assert min(centred, twin) > 3 * error
