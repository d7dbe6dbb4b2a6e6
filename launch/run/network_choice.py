"""Which of two networks a run takes: the fast one where frames come faster than the other does them here.

Decided once, before the run begins, by the rate that is expected and what this computer does. A process of
its own tries that out: what runs a network takes seconds to load, and stays.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from launch.config.config import Config
from stream.stages.config import NetworkConfig

CALM_HZ = 150.0  # up to here nothing is tried: the start of a run would wait for it
MARGIN = 1.5  # over the rate: the other stages of a run want the processor, too
TIMEOUT_S = 60.0
CORES = len(os.sched_getaffinity(0))


def for_the_rate(config: Config) -> tuple[Config, str]:
    """Returns the configuration with the network that its run takes, and why another, "" if it is the same.

    `fast_weights` stand in for the weights where these do fewer frames a second than are expected, or hardly
    more.
    """
    section, rate_hz = config.network, config.detector.rate_hz
    if section.weights is None or section.fast_weights is None or rate_hz is None or rate_hz <= CALM_HZ:
        return config, ""
    does_hz = sustained_hz(section, config.geometry.n_pixels)
    if does_hz is None or does_hz >= MARGIN * rate_hz:
        return config, ""
    fast = section.changed(weights=section.fast_weights, fast_weights=None)
    told = (
        f"{section.fast_weights.stem} instead of {section.weights.stem}, which does {does_hz:.0f} frames a "
        f"second here: {rate_hz:g} are expected (detector.rate_hz)"
    )
    return config.changed(network=fast), told


def sustained_hz(section: NetworkConfig, n_pixels: int) -> float | None:
    """Returns how many patterns a second a network does here, by trial; None where it cannot be tried.

    One worker is tried, and taken as often as workers find cores or devices of their own.
    """
    settings = section.weights, n_pixels, section.batch_size, section.device, section.threads
    command = [sys.executable, "-P", "-m", "launch.run.network_choice", *map(str, settings)]
    with suppress(subprocess.SubprocessError, ValueError):
        tried = subprocess.run(command, capture_output=True, check=True, text=True, timeout=TIMEOUT_S)
        return n_at_once(section) * 1e3 / float(tried.stdout)
    return None  # why not, the stage will say


def n_at_once(section: NetworkConfig, n_cores: int = CORES) -> int:
    """Returns how many workers do not wait for each other: by their devices or, on a CPU, its cores."""
    gpus = {device for device in section.devices if device != "cpu"}
    if gpus or section.device == "cuda":
        return len(gpus) or 1
    return min(section.workers, max(n_cores // section.threads, 1))


def main(weights: str, n_pixels: str, batch_size: str, device: str, threads: str) -> None:
    """Prints the milliseconds that a pattern takes the network."""
    import numpy as np

    from stream.files.weights import load_network
    from stream.stages.inference.predictors import timed

    probe = np.ones((1, int(n_pixels), int(n_pixels)), np.complex64)
    network, _ = load_network(Path(weights))
    _, ms = timed(network, probe, int(batch_size), device, int(threads))
    print(ms)


if __name__ == "__main__":
    main(*sys.argv[1:])
