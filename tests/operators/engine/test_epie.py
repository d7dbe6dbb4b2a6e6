import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.engine.epie import Accumulators, Batch, Steps, modulus_correction, shifted, update
from operators.metrics.errors import amplitude_error
from operators.optics.forward import intensities
from operators.optics.probe import probe_modes
from operators.patches import extract_patches
from tests.helpers.operators.scenes import N_PIXELS, make_scene

FULL = Steps(object_step=1.0, probe_step=1.0, alpha=1.0)


@pytest.fixture
def scene():
    return make_scene(side=4)


def batch_of(xp, scene, chosen=slice(None), shifts=None):
    corners = scene.corners[chosen]
    return Batch(
        xp.asarray(np.sqrt(scene.patterns[chosen])),
        corners,
        xp.ones(len(corners), xp.float32),
        None if shifts is None else xp.asarray(shifts, dtype=xp.float32),
    )


def start(xp, scene, n_modes=1):
    object_ = xp.ones(scene.truth.shape, xp.complex64)
    return object_, xp.asarray(probe_modes(scene.probe[0], n_modes)), Accumulators(object_.shape, xp)


def test_one_frame_moves_object_and_probe_as_published(xp, scene):
    object_, probe, sums = start(xp, scene)
    object_ *= np.complex64(0.9 + 0.1j)
    row, column = scene.corners[3]
    window = np.s_[row : row + N_PIXELS, column : column + N_PIXELS]
    patch, before = to_numpy(object_[window]).copy(), to_numpy(probe[0]).copy()
    wave = np.fft.fft2(before * patch, norm="ortho")
    replaced = np.sqrt(scene.patterns[3]) * np.exp(1j * np.angle(wave))
    change = np.fft.ifft2(replaced, norm="ortho") - before * patch

    update(object_, probe, batch_of(xp, scene, [3]), FULL, sums)

    expected = patch + before.conj() * change / (np.abs(before) ** 2).max()
    np.testing.assert_allclose(to_numpy(object_[window]), expected, atol=1e-4)
    expected = before + patch.conj() * change / (np.abs(patch) ** 2).max()
    np.testing.assert_allclose(to_numpy(probe[0]), expected, atol=1e-3 * np.abs(before).max())


def test_a_model_that_explains_the_data_stays_where_it_is(xp):
    scene = make_scene(side=4, is_noisy=False)
    object_, probe = xp.asarray(scene.truth), xp.asarray(scene.probe)
    errors = update(object_, probe, batch_of(xp, scene), FULL, Accumulators(object_.shape, xp))
    np.testing.assert_allclose(to_numpy(object_), scene.truth, atol=1e-4)
    np.testing.assert_allclose(to_numpy(probe), scene.probe, atol=1e-4 * np.abs(scene.probe).max())
    assert float(errors.sum()) < 1e-6 * scene.patterns.sum()


def test_errors_are_the_misfit_before_the_update(xp, scene):
    object_, probe, sums = start(xp, scene, n_modes=2)
    expected = amplitude_error(xp.asarray(scene.patterns), object_, probe, scene.corners)
    errors = update(object_, probe, batch_of(xp, scene), FULL, sums)
    assert float(errors.sum()) / scene.patterns.sum() == pytest.approx(expected, rel=1e-4)


def test_neither_chunks_nor_the_order_in_a_batch_change_the_result(xp, scene):
    results = []
    for order, chunk in ((slice(None), 1), (slice(None), 16), (slice(None, None, -1), 5)):
        object_, probe, sums = start(xp, scene, n_modes=3)
        update(object_, probe, batch_of(xp, scene, order), FULL, sums, chunk=chunk)
        results.append((to_numpy(object_), to_numpy(probe) / np.abs(scene.probe).max()))
    for object_, probe in results[1:]:
        np.testing.assert_allclose(object_, results[0][0], atol=2e-5)
        np.testing.assert_allclose(probe, results[0][1], atol=2e-5)


def test_sums_are_zero_again_for_the_next_batch(xp, scene):
    object_, probe, sums = start(xp, scene)
    update(object_, probe, batch_of(xp, scene), FULL, sums)
    assert not sums.correction.any()
    assert not sums.illumination.any()


@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_many_overlapping_frames_take_no_more_than_a_stable_step(xp, scene, alpha):
    """The same frame a hundred times must not move the object a hundred times as far."""
    object_, probe, sums = start(xp, scene)
    many = batch_of(xp, scene, [5] * 100)
    steps = Steps(object_step=1.0, probe_step=0.0, alpha=alpha)
    misfits = [float(update(object_, probe, many, steps, sums)[0]) for _ in range(5)]
    assert misfits == sorted(misfits, reverse=True)
    assert misfits[-1] < 0.5 * misfits[0]


def test_a_held_probe_is_not_touched(xp, scene):
    object_, probe, sums = start(xp, scene)
    update(object_, probe, batch_of(xp, scene), Steps(object_step=1, probe_step=0, alpha=0.1), sums)
    np.testing.assert_array_equal(to_numpy(probe), scene.probe)


def test_frames_without_weight_do_not_reach_the_probe(xp, scene):
    alone, together = [], []
    for chosen, into in (([0, 1], alone), ([0, 1, 7], together)):
        object_, probe, sums = start(xp, scene)
        batch = batch_of(xp, scene, chosen)
        batch.probe_weights[2:] = 0
        update(object_, probe, batch, FULL, sums)
        into.append(to_numpy(probe))
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-4, atol=1e-3)


def test_invalid_pixels_keep_the_modelled_value_and_do_not_count(xp, scene):
    rng = np.random.default_rng(1)
    waves = xp.asarray(rng.standard_normal((2, 1, 8, 8)) + 1j, dtype=xp.complex64)
    amplitudes = xp.ones((2, 8, 8), xp.float32)
    mask = xp.ones((8, 8), bool)
    mask[2, 3] = False
    amplitudes[:, 2, 3] = 1e6
    expected = ((1 - np.abs(to_numpy(waves[:, 0]))) ** 2 * to_numpy(mask)).sum(axis=(1, 2))
    corrections, errors = modulus_correction(waves, amplitudes, mask)
    assert not corrections[:, :, 2, 3].any()
    np.testing.assert_allclose(to_numpy(errors), expected, rtol=1e-4)


def test_the_likelier_modulus_has_the_least_cost_of_photon_noise(xp):
    found, counts = np.meshgrid([0.1, 1.0, 5.0], [0.0, 1.0, 30.0])
    waves = xp.asarray(found[None, None] * np.exp(0.7j), dtype=xp.complex64)
    amplitudes = xp.asarray(np.sqrt(counts)[None], dtype=xp.float32)
    corrections, errors = modulus_correction(waves.copy(), amplitudes, None, is_poisson=True)
    likelier = to_numpy(abs(waves + corrections))[0, 0]
    tried = np.linspace(1e-4, 8, 80_001)[:, None, None]
    cost = (tried - found) ** 2 + tried**2 - counts * np.log(tried**2)
    np.testing.assert_allclose(likelier, tried[cost.argmin(axis=0), 0, 0], atol=2e-4)
    np.testing.assert_allclose(float(errors[0]), ((np.sqrt(counts) - found) ** 2).sum(), rtol=1e-4)


def test_modes_share_the_correction_so_that_their_summed_intensity_is_the_measured_one(xp):
    rng = np.random.default_rng(1)
    values = rng.standard_normal((3, 4, 8, 8)) + 1j * rng.standard_normal((3, 4, 8, 8))
    waves = xp.asarray(values.astype(np.complex64))
    measured = xp.asarray(rng.random((3, 8, 8), dtype=np.float32)) + 0.5
    corrections, _ = modulus_correction(waves.copy(), xp.sqrt(measured), None)
    intensity = (abs(waves + corrections) ** 2).sum(axis=1)
    np.testing.assert_allclose(to_numpy(intensity), to_numpy(measured), rtol=1e-4)


def test_whole_pixel_shifts_move_images_by_whole_pixels(xp, scene):
    images = xp.asarray(np.repeat(scene.probe[None], 2, axis=0))
    moved = shifted(images, xp.asarray([[1.0, -2.0], [0.0, 0.0]], dtype=xp.float32))
    limit = 1e-4 * np.abs(scene.probe).max()
    np.testing.assert_allclose(to_numpy(moved[0, 0]), np.roll(scene.probe[0], (1, -2), (0, 1)), atol=limit)
    np.testing.assert_allclose(to_numpy(moved[1]), scene.probe, atol=limit)


def test_shifted_probes_explain_positions_between_pixels(xp, scene):
    """Data made with shifted probes leave a residual for unshifted ones only."""
    truth, probe = xp.asarray(scene.truth), xp.asarray(scene.probe)
    shifts = np.random.default_rng(2).uniform(-0.5, 0.5, (len(scene.corners), 2)).astype(np.float32)
    patches = extract_patches(truth, scene.corners, N_PIXELS)
    probes = shifted(probe[None], xp.asarray(shifts))
    patterns = xp.concatenate(
        [intensities(one, patch[None]) for one, patch in zip(probes, patches, strict=True)]
    )
    ones = xp.ones(len(shifts), xp.float32)
    held = Steps(object_step=0, probe_step=0, alpha=1)
    misfit = {}
    for name, given in (("shifted", xp.asarray(shifts)), ("unshifted", None)):
        batch = Batch(xp.sqrt(patterns), scene.corners, ones, given)
        errors = update(truth, probe, batch, held, Accumulators(truth.shape, xp))
        misfit[name] = float(errors.sum() / patterns.sum())
    assert misfit["shifted"] < 1e-6
    assert misfit["unshifted"] > 1e-3


def test_the_probe_correction_is_shifted_back(xp, scene):
    """From the true object and data at fractions of a pixel, the probe is found where it belongs."""
    truth, probe = xp.asarray(scene.truth), xp.asarray(scene.probe)
    shifts = xp.full((len(scene.corners), 2), 0.5, xp.float32)
    patches = extract_patches(truth, scene.corners, N_PIXELS)
    patterns = intensities(shifted(probe[None], shifts[:1])[0], patches)
    batch = Batch(xp.sqrt(patterns), scene.corners, xp.ones(len(shifts), xp.float32), shifts)
    found = xp.asarray(np.roll(scene.probe, 1, axis=1))
    sums, steps = Accumulators(truth.shape, xp), Steps(object_step=0, probe_step=1, alpha=0.1)
    first = float(update(truth, found, batch, steps, sums).sum())
    for _ in range(60):
        last = float(update(truth, found, batch, steps, sums).sum())
    assert last < 0.02 * first
    overlap = abs(complex((found.conj() * probe).sum())) / float((abs(probe) ** 2).sum())
    assert overlap > 0.98
