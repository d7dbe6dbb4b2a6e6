"""From weights and an option to what predicts: one network, some of its thinned copies, or several."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from operators.arrays import Mask, Probe, abs2
from operators.network.ensemble import Ensemble, Predicting, RoundRobin, thinned
from operators.network.interface import Network
from operators.network.predictor import Predictor, rounding_error
from stream.files.weights import ModelCard, load_network
from stream.record.tuned_weights import ensemble_id

N_TRIALS = 3

Disagreement = Literal["none", "dropout", "ensemble", "round_robin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UncertaintyConfig:
    """What else tells the error bar beside the network itself (`operators.network.ensemble`).

    Attributes
    ----------
    disagreement : str
        "none", of thinned copies of the network ("dropout"), of all members for every frame ("ensemble"), or
        of members that take turns ("round_robin").
    members : tuple of Path
        Weights of the members beside the first, for "ensemble" and "round_robin".
    dropout : float
        Share of channels that a thinned copy has lost.
    n_samples : int
        Thinned copies.
    """

    disagreement: Disagreement = "none"
    members: tuple[Path, ...] = ()
    dropout: float = 0.1
    n_samples: int = 8


def build_predictor(
    network: Network,
    probe: Probe,
    config: UncertaintyConfig,
    *,
    batch_size: int,
    device: str,
    mask: Mask | None = None,
) -> Predicting:
    """Return what predicts with `network`, and with others if that is asked for.

    Parameters
    ----------
    network : Network
        Of the weights in use.
    probe : (mode, y, x) complex64
    config : UncertaintyConfig
    batch_size : int
        Frames per call.
    device : str
    mask : (ky, kx) bool, optional
        True where the detector measures, corner-origin.

    Raises
    ------
    ValueError
        If a member's weights cannot be used or do not fit the probe.
    """

    def predictor(member: Network, share: int = batch_size) -> Predictor:
        return Predictor(member, probe, share, device, mask=mask)

    if config.disagreement == "none":
        return predictor(network)
    if config.disagreement == "dropout":
        others = [thinned(network, config.dropout, seed) for seed in range(config.n_samples)]
    else:
        others = [load_network(path)[0] for path in config.members]
    networks = [network, *others]
    if config.disagreement == "round_robin":
        share = math.ceil(batch_size / len(networks))
        return RoundRobin([predictor(member, share) for member in networks])
    members = [predictor(member) for member in networks]
    weights = abs2(probe).sum(axis=0).astype(np.float32)
    return Ensemble(members, weights, n_estimates=1 if config.disagreement == "dropout" else None)


def models_of(card: ModelCard, config: UncertaintyConfig) -> np.ndarray:
    """Return which weights make the patches, (turn,) uint64 as in the column `model`.

    Of members that take turns each has its own version (`operators.network.ensemble.turns`), the mean of an
    ensemble has one of its own (`ensemble_id`). Thinned copies have no part in the patches.

    Parameters
    ----------
    card : ModelCard
        Of the weights in use.
    config : UncertaintyConfig
    """
    model_ids = [card.model_id]
    if config.disagreement in ("ensemble", "round_robin"):
        model_ids += [load_network(path)[1].model_id for path in config.members]
    if config.disagreement == "ensemble":
        model_ids = [ensemble_id(model_ids)]
    return np.array([int(model_id, 16) for model_id in model_ids], np.uint64)


def torch_device(device: str) -> str:
    """Return what "auto" stands for, "cuda" where there is a device; any other name as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def try_out(network: Network, probe: Probe, batch_size: int, device: str, threads: int) -> str:
    """Return how fast a network runs here, and how far its fast path is from single precision, in a sentence.

    Parameters
    ----------
    network, probe, batch_size, device
        As `build_predictor` takes them; the device may be "auto".
    threads : int
        Of the CPU.
    """
    torch.set_num_threads(threads)
    device = torch_device(device)
    predictor = Predictor(network, probe, batch_size, device)
    predictor.warm_up()
    patterns = np.zeros((batch_size, *probe.shape[1:]), np.float32)
    durations_s = []
    for _ in range(N_TRIALS):
        start = time.perf_counter()
        predictor.predict(patterns)
        durations_s.append(time.perf_counter() - start)
    ms_per_pattern = 1e3 * min(durations_s) / batch_size
    error = rounding_error(network, predictor, probe)
    return f"{ms_per_pattern:.2g} ms per pattern on {device}, rounding changes patches by {error:.0e}"
