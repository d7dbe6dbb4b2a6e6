"""The inference stage with a network that costs nothing and hands on in each patch which frame it is of."""

import numpy as np
from numpy.typing import NDArray

from launch.config.run_file import ResolvedRun, optics
from operators.arrays import Patches, Patterns
from operators.network.interface import Results
from stream.stages.stage import Worker
from tests.benchmarks.kilohertz.free_network import FreeInference, FreePredictor


class StampedPredictor(FreePredictor):
    """Sees the same flat patch in every pattern, but for its first pixel: the stamp of the frame."""

    def submit(self, patterns: Patterns) -> Results:
        """Return what gives patches and sigma of each pattern."""
        patches, sigma = super().submit(patterns)()
        patches = patches.copy()
        centre = patterns.shape[-1] // 2  # where corner-origin patterns have the first pixels of the frame
        patches[:, 0, 0] = patterns[:, centre, centre] + 1j * patterns[:, centre, centre + 1]
        return lambda: (patches, sigma)


class StampedInference(FreeInference):
    """Inference that computes nothing with its weights."""

    predicting = StampedPredictor


def inference(run: ResolvedRun) -> Worker:
    """Returns the stage in place of the pipeline's own."""
    return StampedInference(run.config.network, optics(run))


def frame_of(patches: Patches) -> NDArray[np.int64]:
    """Return which frame each patch says that it is of, (frame,) int64."""
    stamps = patches[:, 0, 0]
    return stamps.real.astype(np.int64) + (stamps.imag.astype(np.int64) << 16)
