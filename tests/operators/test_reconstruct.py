import doctest

import numpy as np
import pytest

import operators.reconstruct
from operators.arrays import centre_origin, corner_origin
from operators.engine.config import RefinerConfig
from operators.geometry import Geometry
from operators.metrics.errors import nrmse
from operators.metrics.gauge import remove_gauge
from operators.reconstruct import FRAMES_AT_A_TIME, reconstruct
from tests.helpers.operators.scenes import N_PIXELS, make_scene

ORIGIN = (-7, 40)


@pytest.fixture(scope="module")
def scene():
    return make_scene(origin=ORIGIN)


@pytest.fixture(scope="module")
def frames(scene):
    """Counts as a detector has them."""
    return centre_origin(scene.patterns).astype(np.uint32)


def found_in(frames, positions_px, probe, **options):
    return reconstruct(frames, positions_px, probe, **{"device": "numpy", "epochs": 3, **options})


def test_the_example_of_the_docstring_is_true():
    result = doctest.testmod(operators.reconstruct)
    assert result.attempted > 8
    assert not result.failed


def test_frames_positions_and_a_guess_of_the_probe_give_object_and_probe(scene, frames):
    y, x = np.indices((N_PIXELS, N_PIXELS)) / N_PIXELS
    guess = (scene.probe[0] * np.exp(2j * (x**2 + y**2 - x - y))).astype(np.complex64) / 50
    found = reconstruct(frames, scene.corners, guess, epochs=60)
    assert found.bounds.origin == tuple(scene.corners.min(axis=0))
    assert found.object.dtype == found.probe.dtype == np.complex64
    assert found.probe.shape == (1, N_PIXELS, N_PIXELS)
    np.testing.assert_allclose((np.abs(found.probe) ** 2).sum(), frames.sum(axis=(1, 2)).mean(), rtol=1e-3)
    np.testing.assert_array_equal(found.positions_px, scene.corners)
    assert found.error_history[-1] < 0.2 * found.error_history[0]
    inside = found.bounds.padded(-N_PIXELS // 2)
    top, left = np.subtract(inside.origin, ORIGIN)
    truth = scene.truth[top : top + inside.shape[0], left : left + inside.shape[1]]
    object_ = found.object[inside.slices_in(found.bounds)]
    assert nrmse(remove_gauge(object_, truth, scale=True), truth).c < 0.15
    misplaced = np.roll(object_, 3, axis=0)
    assert nrmse(remove_gauge(misplaced, truth, shift=False, scale=True), truth).c > 0.3


@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_every_frame_is_visited_however_few_epochs_there_are(scene, frames, batch_size):
    config = RefinerConfig(batch_size=batch_size, probe_step=0)
    found = found_in(frames, scene.corners, scene.probe, config=config, epochs=0.1)
    power = (np.abs(found.probe) ** 2).sum()
    np.testing.assert_allclose(found.photons.sum(), len(frames) * power, rtol=1e-3)


def test_ground_that_no_frame_lit_is_transparent(scene, frames):
    found = found_in(frames, scene.corners, scene.probe, epochs=8)
    least = 0.05 * (np.abs(found.probe) ** 2).sum(axis=0).max()
    is_lit = found.photons > least
    assert 0.5 < is_lit.mean() < 1
    assert (found.object[~is_lit] == 1).all()
    assert (found.object[is_lit] != 1).mean() > 0.99


def test_an_epoch_is_told_with_its_error_as_it_ends(scene, frames):
    told = []
    found = found_in(frames, scene.corners, scene.probe, progress=lambda *values: told.append(values))
    assert [round(epoch) for epoch, _ in told] == [1, 2, 3]
    assert [error for _, error in told] == pytest.approx(found.error_history[:3])


def test_who_is_told_can_end_it_with_what_is_found_by_then(scene, frames):
    found = found_in(frames, scene.corners, scene.probe, epochs=9, progress=lambda epoch, error: epoch >= 2)
    assert len(found.error_history) == 3
    assert found.error_history[-1] < found.error_history[0]


def test_centred_frames_and_corner_origin_patterns_are_the_same_frames(scene, frames):
    centred = found_in(frames, scene.corners, scene.probe)
    corner = found_in(scene.patterns, scene.corners, scene.probe, is_centred=False)
    np.testing.assert_array_equal(centred.object, corner.object)


@pytest.mark.parametrize("is_centred", [True, False])
def test_what_the_mask_excludes_may_hold_anything(scene, frames, is_centred):
    mask = np.ones((N_PIXELS, N_PIXELS), bool)
    mask[3, 20:24] = mask[N_PIXELS // 2] = False
    mask = mask if is_centred else corner_origin(mask)
    given = frames.astype(np.float32) if is_centred else scene.patterns
    spoilt, dark = (np.where(mask, given, value).astype(np.float32) for value in (np.nan, 0))
    options = {"mask": mask, "is_centred": is_centred}
    one, other = (found_in(some, scene.corners, scene.probe, **options) for some in (spoilt, dark))
    np.testing.assert_array_equal(one.object, other.object)
    without = found_in(dark, scene.corners, scene.probe, is_centred=is_centred)
    assert one.error_history[-1] < 0.9 * without.error_history[-1]


def test_the_power_of_a_probe_that_is_known_is_kept(scene, frames):
    bright = 2 * scene.probe
    scaled, kept = (
        found_in(frames, scene.corners, bright, scale_probe=scales, config=RefinerConfig(probe_step=0))
        for scales in (True, False)
    )
    bright_photons = (np.abs(bright) ** 2).sum()
    np.testing.assert_allclose((np.abs(kept.probe) ** 2).sum(), bright_photons, rtol=1e-5)
    np.testing.assert_allclose((np.abs(scaled.probe) ** 2).sum(), scene.patterns.sum() / 64, rtol=1e-5)


def test_frames_are_read_a_few_hundred_at_a_time():
    class Dataset:
        """As HDF5 has it: known by shape and dtype, read where it is sliced."""

        def __init__(self, frames):
            self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype

        def __len__(self):
            return len(self.frames)

        def __getitem__(self, part):
            read.append(part.stop - part.start)
            return self.frames[part]

    read = []
    scene = make_scene(side=17, step=1)
    frames = centre_origin(scene.patterns)
    found = found_in(Dataset(frames), scene.corners, scene.probe, epochs=1)
    assert read == [FRAMES_AT_A_TIME, FRAMES_AT_A_TIME]
    np.testing.assert_array_equal(found.object, found_in(frames, scene.corners, scene.probe, epochs=1).object)


GEOMETRY = Geometry(energy_ev=8800, detector_distance_m=2.0, detector_pixel_m=75e-6, n_pixels=N_PIXELS)


def spoilt(positions_px, at=9, value=np.nan):
    positions_px = positions_px.astype(float)
    positions_px[at, 1] = value
    return positions_px


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f, x, p: (f[0], x, p), r"frames: expected shape \(frame, n, n\), got \(32, 32\)"),
        (lambda f, x, p: (f[:, 4:], x, p), r"frames: .* got \(64, 28, 32\); cut them to a square"),
        (lambda f, x, p: (f[:0], x[:0], p), r"frames: .* got \(0, 32, 32\)"),
        (
            lambda f, x, p: (np.sqrt(f) + 0j, x, p),
            "frames: expected photons, .* got complex128",
        ),
        (lambda f, x, p: (np.where(f > 9, np.nan, f), x, p), "pattern or position of frame 0 is not finite"),
        (lambda f, x, p: (f, x[:-1], p), r"positions_px: expected real \(64, 2\).* got int64 \(63, 2\)"),
        (lambda f, x, p: (f, x.T, p), r"positions_px: expected real \(64, 2\).* got int64 \(2, 64\)"),
        (lambda f, x, p: (f, spoilt(x), p), "positions_px: 1 of 64 are not finite, the first of frame 9"),
        (
            lambda f, x, p: (f, GEOMETRY.to_metres(x), p),
            "all lie within .*e-06 pixels.*are they",
        ),
        (
            lambda f, x, p: (f, 1e3 * x, p),
            "from one to the next it is .*e.03 pixels",
        ),
        (
            lambda f, x, p: (f, x, np.abs(p)),
            r"probe: expected complex \(32, 32\) .* got float32 ",
        ),
        (lambda f, x, p: (f, x, p[:, 1:]), r"probe: .* got complex64 \(1, 31, 32\)"),
        (lambda f, x, p: (f, x, p.repeat(33, 0)), "at most 32 modes of the probe, got 33"),
        (lambda f, x, p: (f[:1], x[:1], p), "of one frame; ptychography needs neighbours"),
        (lambda f, x, p: (f, x, 0 * p), "probe of finite power above zero"),
        (lambda f, x, p: (0 * f, x, p), "no photon on the valid pixels of 64 frames"),
    ],
)
def test_wrong_shapes_dtypes_and_units_are_named(scene, frames, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        found_in(*change(frames, scene.corners, scene.probe))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"mask": np.ones((32, 32))},
            r"mask: expected bool \(32, 32\), True where valid, got flo",
        ),
        ({"mask": np.ones((4, 4), bool)}, r"mask: .* got bool \(4, 4\)"),
        ({"epochs": 0}, "expected finite epochs > 0, got 0"),
        ({"epochs": np.inf}, "expected finite epochs > 0, got inf"),
        ({"device": "gpu"}, "expected a backend of"),
    ],
)
def test_wrong_options_are_named(scene, frames, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        found_in(frames, scene.corners, scene.probe, **options)
