"""How fast the networks run, and what the fast paths cost in accuracy.

Networks take turns batch by batch, so that a machine that is busy with other things slows all of them alike,
and the least time of each counts: what is above it is the work of others.
"""

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Generator

from launch.training.data import Simulator
from launch.training.evaluate import evaluation_probe
from launch.training.recipe import Recipe, read_recipe
from operators.network.interface import Network
from operators.network.predictor import Predictor, rounding_error
from operators.network.registry import NETWORKS
from stream.stages.config import NetworkConfig
from stream.stages.inference.predictors import SideBySide, on_threads
from tests.benchmarks.network.threads import torch_threads

BATCH_SIZE = 16
LIVE_BATCH = 4
N_ROUNDS = 30
PHOTONS = 4e5


def measure_speed(physics: Network, n_threads: int = 2) -> dict[str, float]:
    """Return milliseconds per pattern and rounding errors, by name.

    Parameters
    ----------
    physics : Network
        The default network, trained: rounding errors depend on the weights, speed does not.
    n_threads : int
        Of the CPU.

    Returns
    -------
    dict of float
        `ms_per_pattern` of the default network, `ms_per_pattern_bf16` of convolutions in bfloat16,
        `ms_per_pattern_ptychonet`, the ratio `ptychonet_over_physics`, and how far patches are from those of
        single precision without short cuts: `rounding_error`, `rounding_error_bf16`. For the few frames of a
        live scan on one thread `openvino_over_torch`, the ratio of times in single precision, and
        `rounding_error_openvino`; of what a run takes here over OpenVINO in single precision
        `live_over_openvino`, and `rounding_error_live`: both are bfloat16 where the processor has it.
    """
    probe = evaluation_probe(read_recipe().evaluated_with(photons_per_frame=PHOTONS))
    torch.manual_seed(0)
    ptychonet = NETWORKS["ptychonet"]().eval()
    predictors = {
        "physics": Predictor(physics, probe, BATCH_SIZE),
        "bf16": Predictor(physics, probe, BATCH_SIZE, dtype=torch.bfloat16),
        "ptychonet": Predictor(ptychonet, probe, BATCH_SIZE),
    }
    with torch_threads(n_threads):
        times = least_ms_per_pattern(predictors)
    live = {
        "openvino": Predictor(physics, probe, LIVE_BATCH, dtype=torch.float32),
        "torch": Predictor(physics, probe, LIVE_BATCH, openvino=False),
        "live": Predictor(physics, probe, LIVE_BATCH),
    }
    with torch_threads(1):
        live_times = least_ms_per_pattern(live)
    return {
        "ms_per_pattern": times["physics"],
        "ms_per_pattern_bf16": times["bf16"],
        "ms_per_pattern_ptychonet": times["ptychonet"],
        "ptychonet_over_physics": times["ptychonet"] / times["physics"],
        "rounding_error": rounding_error(physics, predictors["physics"], probe),
        "rounding_error_bf16": rounding_error(physics, predictors["bf16"], probe),
        "openvino_over_torch": live_times["openvino"] / live_times["torch"],
        "rounding_error_openvino": rounding_error(physics, live["openvino"], probe),
        "live_over_openvino": live_times["live"] / live_times["openvino"],
        "rounding_error_live": rounding_error(physics, live["live"], probe),
    }


def pairs_per_cpu_s(recipe: Recipe, n_batches: int = 200) -> float:
    """Return how many pairs of object and pattern a `Simulator` draws in a second of one CPU.

    CPU time of this process, of all its threads, textures and probes being there: it holds on a busy machine.
    """
    simulator, generator = Simulator(recipe), Generator().manual_seed(recipe.seed)
    simulator.draw(recipe.batch_size, generator)
    start = time.process_time()
    for _ in range(n_batches):
        simulator.draw(recipe.batch_size, generator)
    return n_batches * recipe.batch_size / (time.process_time() - start)


def live_ms_per_pattern(networks: dict[str, Network], threads: int = 1) -> dict[str, float]:
    """Return milliseconds per pattern of each network as the live stage runs it, in full batches."""
    probe = evaluation_probe(read_recipe().evaluated_with(photons_per_frame=PHOTONS))
    size = threads * NetworkConfig().batch_size
    with torch_threads(1):
        return least_ms_per_pattern(
            {name: on_threads(it, probe, size, "cpu", threads) for name, it in networks.items()}
        )


def least_ms_per_pattern(predictors: Mapping[str, Predictor | SideBySide]) -> dict[str, float]:
    """Return milliseconds per pattern of each, which take turns."""
    rng = np.random.default_rng(0)
    n_frames = next(iter(predictors.values())).batch_size
    patterns = rng.poisson(PHOTONS / 64**2, (n_frames, 64, 64)).astype(np.float32)
    durations: dict[str, list[float]] = {name: [] for name in predictors}
    for predictor in predictors.values():
        predictor.warm_up()
    for _ in range(N_ROUNDS):
        for name, predictor in predictors.items():
            start = time.perf_counter()
            predictor.submit(patterns)()
            durations[name].append(time.perf_counter() - start)
    return {name: min(values) / n_frames * 1e3 for name, values in durations.items()}
