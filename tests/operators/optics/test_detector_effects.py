import numpy as np
import pytest
import torch

from operators.arrays import centre_origin
from operators.optics.detector_effects import (
    HOT_COUNTS,
    Detector,
    DetectorEffects,
    beam_stop,
    detect,
    draw_detector,
    module_gaps,
    read_out,
)

N = 64


def drawn(**effects: float) -> Detector:
    return draw_detector(DetectorEffects(**effects), N, np.random.default_rng(0))


def counts_of(detector: Detector, photons: float, n_frames: int = 200) -> np.ndarray:
    expected = np.full((n_frames, N, N), photons, np.float32)
    return detect(expected, detector, np.random.default_rng(1))


def test_an_ideal_detector_counts_photons() -> None:
    expected = np.full((3, N, N), 7.0, np.float32)
    counts = detect(expected, drawn(), np.random.default_rng(1))
    assert counts.dtype == np.uint32
    np.testing.assert_array_equal(counts, np.random.default_rng(1).poisson(expected))
    assert drawn().valid.all()


def test_the_same_generator_draws_the_same_detector() -> None:
    effects = {"gain_spread": 0.1, "dead_share": 0.1, "hot_share": 0.1, "gap_px": 3}
    for first, again in zip(drawn(**effects), drawn(**effects), strict=True):
        np.testing.assert_array_equal(first, again)


def test_sensitivity_scatters_from_pixel_to_pixel() -> None:
    mean = counts_of(drawn(gain_spread=0.2), 1000.0).mean(axis=0)
    assert mean.std() / mean.mean() == pytest.approx(0.2, rel=0.05)


def test_dead_pixels_count_nothing_and_are_not_valid() -> None:
    detector = drawn(dead_share=0.05)
    is_dead = counts_of(detector, 50.0, 20).sum(axis=0) == 0
    assert is_dead.mean() == pytest.approx(0.05, abs=0.01)
    np.testing.assert_array_equal(is_dead, ~detector.valid)


def test_hot_pixels_count_without_light_and_are_not_valid() -> None:
    detector = drawn(hot_share=0.05)
    dark = counts_of(detector, 0.0, 20)
    assert (~detector.valid).mean() == pytest.approx(0.05, abs=0.01)
    assert dark[:, detector.valid].sum() == 0
    assert dark[:, ~detector.valid].mean() == pytest.approx(HOT_COUNTS, rel=0.2)


def test_a_beam_stop_hides_a_disc_about_the_direct_beam() -> None:
    is_hidden = beam_stop(N, 5.0)
    assert is_hidden.sum() == pytest.approx(np.pi * 25, rel=0.15)
    np.testing.assert_allclose(np.argwhere(is_hidden).mean(axis=0), N // 2)
    np.testing.assert_array_equal(centre_origin(drawn(beam_stop_px=5.0).valid), ~is_hidden)


def test_gaps_are_as_wide_as_asked_for_and_leave_the_direct_beam() -> None:
    places = set()
    for seed in range(200):
        is_gap = module_gaps(N, 4, np.random.default_rng(seed))
        rows, columns = (np.flatnonzero(is_gap.all(axis=axis)) for axis in (1, 0))
        assert is_gap.sum() == 2 * 4 * N - 16
        for lines in (rows, columns):
            assert np.diff(lines).tolist() == [1, 1, 1]
            assert (np.abs(lines - (N / 2 - 0.5)) >= N // 8).all()
        places.add(int(rows[0]))
    assert min(places) < 4
    assert max(places) > N - 8
    with pytest.raises(ValueError, match="no room beside the beam for 30 of 64 pixels"):
        module_gaps(N, 30, np.random.default_rng(0))


def test_background_has_the_mean_asked_for_and_is_brighter_about_the_beam() -> None:
    background = centre_origin(drawn(background=2.0).background)
    assert background.mean() == pytest.approx(2.0, rel=0.02)
    assert background[N // 2, N // 2] > 2 * background[0, 0] > 0
    assert counts_of(drawn(background=2.0), 0.0).mean() == pytest.approx(2.0, rel=0.02)


def test_no_pixel_reads_more_than_saturation() -> None:
    counts = counts_of(drawn(saturation=100.0), 100.0, 20)
    assert counts.max() == 100
    assert 0.3 < (counts == 100).mean() < 0.7


def test_tensors_are_read_out_as_arrays_are() -> None:
    detector = drawn(gain_spread=0.1, dead_share=0.05, saturation=40.0)
    photons = np.random.default_rng(2).poisson(30.0, (3, N, N)).astype(np.float32)
    tensors = Detector(*(torch.from_numpy(values) for values in detector))
    counts = read_out(torch.from_numpy(photons), tensors)
    np.testing.assert_array_equal(counts.numpy(), read_out(photons, detector))


@pytest.mark.parametrize(
    ("effects", "message"),
    [
        ({"gain_spread": -0.1}, "gain_spread must be 0 or more, got -0.1"),
        ({"background": float("nan")}, "background must be 0 or more"),
        ({"dead_share": 0.6, "hot_share": 0.5}, r"dead_share \+ hot_share < 1"),
        ({"saturation": 0.0}, "saturation > 0"),
    ],
)
def test_impossible_detectors_are_refused(effects: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectorEffects(**effects)
