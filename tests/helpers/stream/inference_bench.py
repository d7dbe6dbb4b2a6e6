"""Scans of a small sample through the stage of inference, with networks that have learnt nothing."""

import numpy as np
import torch

from operators.network.physics_net import PhysicsNet
from operators.network.registry import NETWORKS
from operators.optics.forward import intensities
from stream.files.weights import save_network
from stream.record.scan import Scan
from stream.record.tuned_weights import version_path
from stream.stages.config import NetworkConfig
from stream.stages.inference.worker import Inference
from stream.stages.loop import WorkerLoop
from tests.helpers.operators.networks import untrained_card
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import Sample, close, make_scan, record

SHAPE_OF_NETWORK = {"n_pixels": 16, "crop": 16, "widths": (8, 8)}
CARD = untrained_card(SHAPE_OF_NETWORK)


def network(seed=0):
    """Return a network that has learnt nothing and yet says something of its own about every pixel."""
    torch.manual_seed(seed)
    it: PhysicsNet = NETWORKS["physics"](**SHAPE_OF_NETWORK)
    torch.nn.init.normal_(it.stages[-1].head.weight, std=0.3)
    it.largest_intensity.fill_(1.0)  # as if training had shown it any pattern
    return it


class InferenceBench:
    """A sample, its frames and a network on disk."""

    def __init__(self, folder):
        self.scanned = Sample()
        self.card = save_network(folder / "weights.safetensors", network(), CARD)
        self.optics = self.scanned.optics(folder)
        self.weights = folder / "weights.safetensors"
        rng = np.random.default_rng(0)
        patterns = rng.poisson(intensities(self.scanned.probe, self.scanned.patches))
        self.frames = np.fft.fftshift(patterns, axes=(1, 2)).astype("<u2")

    def stage(self, optics=None, **changes):
        settings = {"weights": self.weights, "batch_size": 8, "device": "cpu"}
        return Inference(NetworkConfig(**settings | changes), optics or self.optics, clock=Clock())

    def run(self, scans, *, order=None, later=False, **changes):
        """Return what inference leaves of a scan whose frames arrive in `order`, six at a time."""
        scan, numbers = make_scan(scans), np.arange(len(self.scanned)) if order is None else order
        stage = self.stage(**changes)
        stage.stores_later |= later
        loop = WorkerLoop(stage, scans, Clock())
        for start in range(0, len(numbers), 6):
            record(scan, numbers[start : start + 6], self.frames[numbers[start : start + 6]])
            loop.turn()
        close(scan, "subscriber")
        for _ in range(20):
            loop.turn()
        return Scan(scan.folder)


def other_network():
    other = network()
    torch.nn.init.normal_(other.stages[-1].head.weight, std=0.1)
    return other


def tune(scan):
    """Leave a version of the weights as the stage `finetune` does, and return its card."""
    card = save_network(version_path(scan, 1), other_network(), CARD)
    scan.counters("finetune", writable=True)["version"] = 1
    return card
