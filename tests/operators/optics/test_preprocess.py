import numpy as np
import pytest

from operators.arrays import centre_origin, to_numpy
from operators.optics.preprocess import Preprocess, mean_frame
from operators.orientation.turn import Turn, turned_frames

SHAPE = (12, 10)


def numbered_frames(n_frames=2):
    return np.arange(n_frames * 120, dtype=np.uint16).reshape(n_frames, *SHAPE)


def test_patterns_are_the_centre_of_the_frame_in_photons_with_the_origin_in_the_corner(xp):
    prepare = Preprocess(frame_shape=SHAPE, n_pixels=8, photons_per_count=0.5)
    patterns = prepare(xp.asarray(numbered_frames()))
    assert patterns.dtype == np.float32
    np.testing.assert_array_equal(to_numpy(centre_origin(patterns)), numbered_frames()[:, 2:10, 1:9] * 0.5)
    assert float(patterns[0, 0, 0]) == numbered_frames()[0, 6, 5] * 0.5


@pytest.mark.parametrize("binning", [1, 2])
def test_the_configured_centre_lands_on_zero_frequency(xp, binning):
    frame = np.zeros((1, *SHAPE), np.uint32)
    frame[0, 5, 4] = 7
    patterns = Preprocess(frame_shape=SHAPE, n_pixels=4, centre=(5, 4), binning=binning)(xp.asarray(frame))
    assert float(patterns[0, 0, 0]) == 7
    assert float(patterns.sum()) == 7


def test_binning_sums_counts(xp):
    frames = numbered_frames()
    patterns = Preprocess(frame_shape=SHAPE, n_pixels=5, centre=(5, 5), binning=2)(xp.asarray(frames))
    expected = sum(frames[:, i:10:2, j:10:2].astype(float) for i in (0, 1) for j in (0, 1))
    np.testing.assert_array_equal(to_numpy(centre_origin(patterns)), expected)


@pytest.mark.parametrize("background", [3.0, np.full(SHAPE, 3, np.uint16)])
def test_background_is_taken_from_every_detector_pixel_and_never_leaves_less_than_nothing(xp, background):
    frames = np.zeros((1, *SHAPE), np.uint16)
    frames[0, 4:6, 4:6] = 5
    prepare = Preprocess(frame_shape=SHAPE, n_pixels=4, centre=(6, 4), binning=2, background=background)
    patterns = to_numpy(centre_origin(prepare(xp.asarray(frames))))
    assert patterns[0, 1, 2] == 4 * (5 - 3)
    assert patterns.sum() == 4 * (5 - 3)


def test_an_invalid_pixel_is_zero_and_masked_in_the_corner_origin_pattern(xp):
    valid = np.ones(SHAPE, bool)
    valid[6, 5] = False  # the centre of the frame
    prepare = Preprocess(frame_shape=SHAPE, n_pixels=8, valid_pixels=valid)
    patterns = prepare(xp.asarray(numbered_frames(1) + np.uint16(1)))
    assert not prepare.mask[0, 0]
    assert prepare.mask.sum() == 63
    np.testing.assert_array_equal(to_numpy(patterns)[0] > 0, prepare.mask)


def test_one_bad_detector_pixel_spoils_its_binned_pixel():
    valid = np.ones(SHAPE, bool)
    valid[0, 0] = False
    mask = Preprocess(frame_shape=SHAPE, n_pixels=5, centre=(5, 5), binning=2, valid_pixels=valid).mask
    assert centre_origin(mask).tolist() == [[False] + [True] * 4] + [[True] * 5] * 4


def test_a_mask_of_the_pattern_is_taken_as_it_is():
    valid = np.ones((5, 5), bool)
    valid[4, 3] = False
    mask = Preprocess(frame_shape=SHAPE, n_pixels=5, binning=2, valid_pixels=valid).mask
    np.testing.assert_array_equal(centre_origin(mask), valid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_pixels": 11}, r"columns 0\.\.10, but frames have shape \(12, 10\)"),
        ({"n_pixels": 8, "centre": (3, 5)}, r"rows -1\.\.6"),
        ({"n_pixels": (8, 6)}, "n_pixels must be one positive whole number"),
        ({"n_pixels": 8, "binning": 0}, "binning must be"),
        ({"n_pixels": 8, "centre": (5.5, 4)}, "centre must be a detector pixel"),
        ({"n_pixels": 8, "photons_per_count": 0.0}, "photons_per_count must be positive"),
        ({"n_pixels": 8, "background": np.zeros((8, 8))}, r"background has shape \(8, 8\)"),
        ({"n_pixels": 8, "valid_pixels": np.ones((9, 9), bool)}, r"got bool \(9, 9\)"),
        ({"n_pixels": 8, "valid_pixels": np.ones(SHAPE)}, "got float64"),
    ],
)
def test_impossible_preparation_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(frame_shape=SHAPE, **options)


@pytest.mark.parametrize("shape", [(1, 10, 12), (12, 10)])
def test_frames_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="expected frames of shape"):
        Preprocess(frame_shape=SHAPE, n_pixels=8)(np.zeros(shape, np.uint16))


def test_frames_are_not_changed():
    frames = numbered_frames()
    Preprocess(frame_shape=SHAPE, n_pixels=8, background=2.0, photons_per_count=3.0)(frames)
    np.testing.assert_array_equal(frames, numbered_frames())


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("flip_rows", [False, True])
@pytest.mark.parametrize("flip_columns", [False, True])
def test_a_detector_that_is_mounted_another_way_gives_the_patterns_of_an_upright_one(
    xp, transpose, flip_rows, flip_columns
):
    rng = np.random.default_rng(0)
    upright = rng.integers(0, 100, (2, 8, 8)).astype(np.uint16)
    upright[:, 0] = upright[:, :, 0] = 0  # what an even side has on one side only
    valid = rng.random((8, 8)) > 0.2
    valid[0] = valid[:, 0] = True
    turn = Turn(
        transpose,
        (-1 if flip_columns else 1, -1 if flip_rows else 1)
        if transpose
        else (-1 if flip_rows else 1, -1 if flip_columns else 1),
    )
    sent, sent_valid = turned_frames(upright, turn), turned_frames(valid[None], turn)[0]
    plain = Preprocess(frame_shape=(8, 8), n_pixels=8, valid_pixels=valid)
    turned = Preprocess(
        frame_shape=(8, 8), n_pixels=8, valid_pixels=sent_valid,
        transpose=transpose, flip_rows=flip_rows, flip_columns=flip_columns,
    )  # fmt: skip
    np.testing.assert_array_equal(to_numpy(turned(xp.asarray(sent))), to_numpy(plain(xp.asarray(upright))))
    np.testing.assert_array_equal(turned.mask, plain.mask)
    np.testing.assert_array_equal(turned.valid_in_frame(), sent_valid)


@pytest.mark.parametrize(
    ("dtype", "code"), [("u1", 255), ("u2", 65535), ("u4", 2**32 - 1), ("i2", -1), ("i4", -2)]
)
@pytest.mark.parametrize("binning", [1, 2])
def test_the_number_that_marks_a_dead_pixel_is_no_count(xp, dtype, code, binning):
    frames = np.full((2, *SHAPE), 7, dtype)
    frames[1, 6, 5] = code
    prepare = Preprocess(frame_shape=SHAPE, n_pixels=8 // binning, binning=binning)
    patterns = to_numpy(prepare(xp.asarray(frames)))
    assert (patterns[0] == 7 * binning**2).all()
    assert patterns[0].sum() - patterns[1].sum() == 7


def test_a_flat_field_makes_pixels_alike_and_those_that_see_nothing_invalid(xp):
    flat = np.full(SHAPE, 2.0)
    flat[6, 5], flat[6, 6], flat[6, 4] = 4.0, 0.0, np.nan
    frames = np.round(100 * np.nan_to_num(flat)).astype(np.uint16)[None]
    prepare = Preprocess(frame_shape=SHAPE, n_pixels=8, flat=flat)
    patterns = to_numpy(prepare(xp.asarray(frames)))
    assert prepare.mask.sum() == 62
    assert np.ptp(patterns[0][prepare.mask]) < 1e-3 * patterns.max()


def test_the_mean_of_dark_frames_leaves_out_what_struck_single_ones():
    frames = np.random.default_rng(0).poisson(4, (60, *SHAPE)).astype(np.uint16)
    frames[7, 3, 3] = 5000
    assert mean_frame(frames)[3, 3] < 6
    assert mean_frame(frames).mean() == pytest.approx(4, rel=0.05)
