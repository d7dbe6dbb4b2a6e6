"""A network of random weights as a file that says so: for speed, which does not depend on what was learnt."""

from pathlib import Path
from typing import Any

import torch

from operators.network.registry import NETWORKS
from stream.files.weights import ModelCard, save_network

# The shape of the demo's network for windows of twice the side, and a small one.
SHAPE_128: dict[str, Any] = {"n_pixels": 128, "crop": 80, "n_last_steps": 3}
SHAPE_32: dict[str, Any] = {"n_pixels": 32, "crop": 20, "widths": (4, 8), "n_last_steps": 1}


def save_untrained(path: Path, shape: dict[str, Any]) -> Path:
    """Return `path`, where a default network of this shape lies now: any probe and number of photons suit it.

    Parameters
    ----------
    path : Path
        Of the new .safetensors file.
    shape : dict
        Keyword arguments of `operators.network.physics_net.PhysicsNet`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NETWORKS["physics"](**shape)
    network.largest_intensity.fill_(1.0)  # as if training had shown it any pattern
    card = ModelCard(
        name="untrained",
        network="physics",
        config=shape,
        recipe={},
        seed=0,
        data="none: random weights, to measure speed with; what they see in a pattern means nothing",
        probe={},
        photons_per_frame=(1.0, 1e9),
    )
    save_network(path, network, card)
    return path
