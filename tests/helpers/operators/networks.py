"""A probe, its patterns, a network whose every weight matters, as after a training, and cards of networks."""

from typing import Any

import numpy as np
import torch

from operators.arrays import Probe
from operators.network.physics_net import PhysicsNet
from operators.optics.forward import simulate_counts
from operators.optics.probe import with_power, zone_plate_probe
from operators.optics.samples import object_from_texture, texture
from stream.files.weights import ModelCard

PHOTONS = 4e5
PROBE = with_power(zone_plate_probe(64, 12, 14)[None], PHOTONS)


def some_patterns(probe: Probe = PROBE) -> np.ndarray:
    rng = np.random.default_rng(0)
    object_ = object_from_texture(texture("voronoi", (128, 128), rng))
    return simulate_counts(object_, probe, rng.integers(0, 64, (7, 2)), rng).astype(np.float32)


def some_network() -> PhysicsNet:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = PhysicsNet(widths=(8, 16))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    network.largest_intensity.fill_(1.0)
    return network.eval()


def untrained_card(config: dict[str, Any]) -> ModelCard:
    """Return the card of the default network with these settings; any number of photons suits it."""
    return ModelCard(
        name="untrained",
        network="physics",
        config=config,
        recipe={},
        seed=0,
        data="none",
        probe={},
        photons_per_frame=(1.0, 1e9),
    )
