"""The inference stage with a network that costs nothing: frames are read and patches stored, all alike."""

import numpy as np

from launch.config.run_file import ResolvedRun, optics
from operators.arrays import Patterns, Probe
from operators.network.interface import Network, Predicting, Results
from stream.files.weights import ModelCard
from stream.stages.inference.predictors import models_of
from stream.stages.inference.worker import Inference, WarmPredictor
from stream.stages.stage import Worker

SIGMA_RAD = 0.1


class FreePredictor(Predicting):
    """Sees the same flat patch in every pattern.

    Attributes
    ----------
    crop : int
        Side of the patches, pixels.
    """

    def __init__(self, crop: int, most: int) -> None:
        self.crop = crop
        self._patches = np.ones((most, crop, crop), np.complex64)
        self._sigma = np.full((most, crop, crop), SIGMA_RAD, np.float32)

    def submit(self, patterns: Patterns) -> Results:
        """Return what gives patches and sigma of each pattern."""
        n = len(patterns)
        return lambda: (self._patches[:n], self._sigma[:n])

    def warm_up(self) -> None:
        """Does nothing: it is warm."""


class FreeInference(Inference):
    """Inference that computes nothing with its weights."""

    predicting = FreePredictor

    def warm_predictor(self, network: Network, card: ModelCard, probe: Probe) -> WarmPredictor:
        """Returns what is warm at once."""
        predictor = self.predicting(network.crop, self.batch_size)
        return WarmPredictor(predictor, models_of(card, self.config))


def inference(run: ResolvedRun) -> Worker:
    """Returns the stage in place of the pipeline's own."""
    return FreeInference(run.config.network, optics(run))
