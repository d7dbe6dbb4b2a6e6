"""From weights and an option to what predicts: one network, some of its thinned copies, or several."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from operators.arrays import Mask, Patches, Patterns, Probe, abs2
from operators.network.ensemble import Ensemble, RoundRobin, thinned
from operators.network.interface import Network, Predicting, Results
from operators.network.predictor import Predictor, rounding_error
from stream.files.weights import ModelCard, load_network
from stream.record.tuned_weights import ensemble_id
from stream.stages.config import NetworkConfig

N_TRIALS = 3


class SideBySide(Predicting):
    """Several predictors of one network, each of which runs a share of the patterns on a thread of its own.

    Threads that work on one layer together wait for each other after each, and those of OpenVINO and torch
    get into each other's way.

    Parameters
    ----------
    make : callable
        Returns a predictor.
    n_threads : int

    Attributes
    ----------
    batch_size : int
        Patterns per run of all of them.
    """

    def __init__(self, make: Callable[[], Predictor], n_threads: int) -> None:
        self._predictors = [make() for _ in range(n_threads)]
        # Told to each thread: torch shares the work of a new one out among all cores.
        self._pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))
        self.crop = self._predictors[0].crop
        self.batch_size = sum(predictor.batch_size for predictor in self._predictors)

    def submit(self, patterns: Patterns) -> Results:
        """Return what gives patches and sigma: see `Predicting.submit`."""
        shares = np.array_split(patterns, len(self._predictors))
        coming = [
            self._pool.submit(predictor.submit, share)
            for predictor, share in zip(self._predictors, shares, strict=True)
        ]

        def results() -> tuple[Patches, np.ndarray]:
            patches, sigma = zip(*(future.result()() for future in coming), strict=True)
            return np.concatenate(patches), np.concatenate(sigma)

        return results

    def warm_up(self) -> None:
        """Warm up every predictor, in its turn."""
        for predictor in self._predictors:
            self._pool.submit(predictor.warm_up).result()


def build_predictor(
    network: Network,
    probe: Probe,
    config: NetworkConfig,
    *,
    device: str,
    mask: Mask | None = None,
) -> Predicting:
    """Return what predicts with `network`, and with others if that is asked for.

    Parameters
    ----------
    network : Network
        Of the weights in use.
    probe : (mode, y, x) complex64
    config : NetworkConfig
        Frames per call, and what else tells the uncertainty (`operators.network.ensemble`).
    device : str
        Of torch.
    mask : (ky, kx) bool, optional
        True where the detector measures, corner-origin.

    Raises
    ------
    ValueError
        If a member's weights cannot be used or do not fit the probe.
    """

    def predictor(member: Network, share: int = config.batch_size) -> Predicting:
        return on_threads(member, probe, share, device, config.threads, mask)

    if config.disagreement == "none":
        return predictor(network)
    if config.disagreement == "dropout":
        others = [thinned(network, config.dropout, seed) for seed in range(config.dropout_samples)]
    else:
        others = [load_network(path)[0] for path in config.members]
    networks = [network, *others]
    if config.disagreement == "round_robin":
        share = math.ceil(config.batch_size / len(networks))
        return RoundRobin([predictor(member, share) for member in networks])
    members = [predictor(member) for member in networks]
    weights = abs2(probe).sum(axis=0).astype(np.float32)
    return Ensemble(members, weights, n_estimates=1 if config.disagreement == "dropout" else None)


def on_threads(
    network: Network, probe: Probe, batch_size: int, device: str, threads: int, mask: Mask | None = None
) -> Predictor | SideBySide:
    """Return what predicts with one network; arguments as `build_predictor`, threads of the CPU."""
    if threads == 1 or device.startswith("cuda"):
        return Predictor(network, probe, batch_size, device, mask=mask)
    share = math.ceil(batch_size / threads)
    return SideBySide(lambda: Predictor(network, probe, share, device, mask=mask), threads)


def models_of(card: ModelCard, config: NetworkConfig) -> np.ndarray:
    """Return which weights make the patches, (turn,) uint64 as in the column `model`.

    Of members that take turns each has its own version (`operators.network.ensemble.turns`), the mean of an
    ensemble has one of its own (`ensemble_id`). Thinned copies have no part in the patches.

    Parameters
    ----------
    card : ModelCard
        Of the weights in use.
    config : NetworkConfig
    """
    model_ids = [card.model_id]
    if config.disagreement in ("ensemble", "round_robin"):
        model_ids += [load_network(path)[1].model_id for path in config.members]
    if config.disagreement == "ensemble":
        model_ids = [ensemble_id(model_ids)]
    return np.array([int(model_id, 16) for model_id in model_ids], np.uint64)


def torch_device(device: str) -> str:
    """Return what "auto" stands for, "cuda" where there is a device; any other name as it is.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"device {device!r}: wanted cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: PyTorch sees no CUDA device here, use cpu")
    return device


def check_devices(section: NetworkConfig) -> None:
    """Raises ValueError if a CUDA device that the network is to run on is not here."""
    torch_device(section.device)
    n_here = torch.cuda.device_count()
    for device in section.devices:
        _, _, index = device.partition(":")
        if index and int(index) >= n_here:
            raise ValueError(
                f"network.devices: {device}: PyTorch sees {n_here} CUDA devices here, from cuda:0 on"
            )


def try_out(network: Network, probe: Probe, batch_size: int, device: str, threads: int) -> str:
    """Return how fast a network runs here, and how far its fast path is from single precision, in a sentence.

    Parameters
    ----------
    network, probe, batch_size, device
        As `build_predictor` takes them; the device may be "auto".
    threads : int
        Of the CPU.
    """
    predictor, ms = timed(network, probe, batch_size, device, threads)
    error = rounding_error(network, predictor, probe)
    return f"{ms:.2g} ms per pattern on {torch_device(device)}, rounding changes patches by {error:.0e}"


def timed(
    network: Network, probe: Probe, batch_size: int, device: str, threads: int
) -> tuple[Predictor | SideBySide, float]:
    """Return what runs a network here, and the milliseconds that a pattern takes; arguments as `try_out`."""
    torch.set_num_threads(1)
    predictor = on_threads(network, probe, batch_size, torch_device(device), threads)
    predictor.warm_up()
    patterns = np.zeros((batch_size, *probe.shape[1:]), np.float32)
    durations_s = []
    for _ in range(N_TRIALS):
        start = time.perf_counter()
        predictor.predict(patterns)
        durations_s.append(time.perf_counter() - start)
    return predictor, 1e3 * min(durations_s) / batch_size
