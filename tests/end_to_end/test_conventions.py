"""A letter F through the whole pipeline is a letter F: orientation, parity, centre, signs and scale."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from launch.offline.reconstruct import reconstruct
from operators.metrics.errors import NRMSE, nrmse
from stream.live.client import LiveReconstruction
from tests.helpers.letter import N_PIXELS, ScannedSample
from tests.helpers.pipeline import OFFLINE, Outcome, Pipeline

Wrong = Callable[[ScannedSample], ScannedSample]


def is_the_truth(error: NRMSE) -> bool:
    """The right conventions come to 0.05 and 0.013, the nearest wrong one to 0.63 and 0.18."""
    return error.c < 0.1 and error.loose < 0.03


def flipped(frames: np.ndarray, *axes: int) -> np.ndarray:
    """Frames mirrored about zero frequency, which stays at the array centre."""
    return np.roll(np.flip(frames, axes), 1, axes)


def test_the_letter_comes_out_as_it_is(well_behaved: Outcome, sample: ScannedSample) -> None:
    assert is_the_truth(well_behaved.error(sample))
    well_behaved.assert_accounted(recorded=len(sample))
    assert well_behaved.figures["is_complete"]


def test_the_amplitude_is_the_transmission_of_the_sample(
    well_behaved: Outcome, sample: ScannedSample
) -> None:
    letter, around = sample.lit & (abs(sample.truth) < 0.72), sample.lit & (abs(sample.truth) > 0.99)
    found = abs(well_behaved.result.object)
    assert found.shape == sample.truth.shape
    assert np.median(found[letter]) == pytest.approx(0.7, rel=0.02)
    assert np.median(found[around]) == pytest.approx(1.0, rel=0.01)
    photons = (abs(well_behaved.result.probe) ** 2).sum()
    assert photons == pytest.approx((abs(sample.probe) ** 2).sum(), rel=1e-5)


def test_positions_and_pixels_are_absolute(well_behaved: Outcome, sample: ScannedSample) -> None:
    result = well_behaved.result
    assert (result.bounds.top, result.bounds.left) == (0, 0)
    np.testing.assert_allclose(result.positions_m, sample.positions_m, atol=1e-15)
    last_px = result.geometry.to_pixels(result.positions_m).max(axis=0)
    np.testing.assert_allclose(last_px + N_PIXELS, sample.truth.shape, atol=1e-4)


def test_a_client_sees_the_same_letter(pipeline: Pipeline, sample: ScannedSample) -> None:
    with LiveReconstruction(pipeline.live_address, follow=True) as live:
        outcome = pipeline.run(sample, "watched")
        images = []

        def is_final() -> bool:
            image = live.poll()
            if image is not None and image.scan == outcome.scan.name:
                images.append(image)
            return bool(images) and images[-1].is_final

        pipeline.until(is_final)
    image, result = images[-1], outcome.result
    assert image.origin_px == (result.bounds.top, result.bounds.left)
    # The live image keeps the phase it began with.
    assert nrmse(image.object, result.object, sample.lit).loose < 1e-5
    assert is_the_truth(sample.error(image.object, result.bounds))


WRONG: dict[str, Wrong] = {
    "frames transposed": lambda s: replace(s, frames=s.frames.transpose(0, 2, 1)),
    "frames upside down": lambda s: replace(s, frames=flipped(s.frames, 1)),
    "frames left to right": lambda s: replace(s, frames=flipped(s.frames, 2)),
    "frames turned, which conjugates": lambda s: replace(s, frames=flipped(s.frames, 1, 2)),
    "zero frequency in the corner": lambda s: replace(s, frames=np.fft.fftshift(s.frames, (1, 2))),
    "zero frequency one pixel off": lambda s: replace(s, frames=np.roll(s.frames, 1, 2)),
    "y negated": lambda s: replace(s, positions_m=s.positions_m * [-1, 1]),
    "x negated": lambda s: replace(s, positions_m=s.positions_m * [1, -1]),
    "both negated": lambda s: replace(s, positions_m=-s.positions_m),
    "y and x swapped": lambda s: replace(s, positions_m=s.positions_m[:, ::-1]),
    "frames and positions transposed": lambda s: replace(
        s, frames=s.frames.transpose(0, 2, 1), positions_m=s.positions_m[:, ::-1]
    ),
    "frames and positions turned": lambda s: replace(
        s, frames=flipped(s.frames, 1, 2), positions_m=s.positions_m.max(axis=0) - s.positions_m
    ),
    "pixel size ten per cent off": lambda s: replace(s, positions_m=1.1 * s.positions_m),
    "positions of the frames before": lambda s: replace(s, positions_m=np.roll(s.positions_m, 1, 0)),
    "counts twice as many": lambda s: replace(s, frames=2 * s.frames),
}


def offline_error(sample: ScannedSample, seen: ScannedSample) -> NRMSE:
    result = reconstruct(seen.recorded(), OFFLINE)
    return sample.error(result.object, result.bounds)


def test_the_same_criterion_accepts_the_right_conventions_offline(sample: ScannedSample) -> None:
    assert is_the_truth(offline_error(sample, sample))


@pytest.mark.parametrize("convention", WRONG)
def test_a_wrong_convention_is_noticed(sample: ScannedSample, convention: str) -> None:
    error = offline_error(sample, WRONG[convention](sample))
    assert not is_the_truth(error), f"{convention} passes with {error}"
