"""Stage: patterns through the network, patch and sigma out.

Works on every recorded frame at once, whether its position is known or not: frame and position meet later, in
the columns. Two things may change while a scan runs: a probe that was not known is found
(`stream.found_probe`), for which frames wait, and weights are tuned to the sample (`stream.versions`), which
are taken up between two batches. The column `model` says which weights made a patch.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators.arrays import Probe
from operators.ensemble import Predicting
from operators.network_interface import Network
from stream.found_probe import STAGE as PROBE_STAGE
from stream.predictors import UncertaintyConfig, build_predictor, torch_device
from stream.prepare import Optics, read_patterns
from stream.scan import Numbers, Scan, State
from stream.sockets import Endpoint
from stream.versions import newest_version
from stream.weights import load_network
from stream.wire import Buffer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """Settings of the inference stage.

    Attributes
    ----------
    optics : Optics
        The probe is an input of the network; where none is known it is found during the scan.
    weights : Path
        .safetensors file.
    batch_size : int
        Most frames per run of the network.
    deadline_s : float
        A frame waits no longer than this for its batch to fill.
    threads : int
        Of the CPU.
    device : str
        "cpu", "cuda" or "auto".
    uncertainty : UncertaintyConfig
        What is added to the network's own error bars.
    """

    optics: Optics
    weights: Path
    batch_size: int = 8
    deadline_s: float = 0.02
    threads: int = 1
    device: str = "auto"
    uncertainty: UncertaintyConfig = field(default_factory=UncertaintyConfig)


class Inference:
    """Worker: frames of its scan through the network."""

    name = "inference"
    inputs: tuple[str, ...] = ("subscriber",)
    door: Endpoint | None = None
    newest_first = True

    def __init__(self, config: InferenceConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self.batch_size, self.deadline_s = config, config.batch_size, config.deadline_s
        self.waits_for: tuple[str, ...] = () if config.optics.probe else (PROBE_STAGE,)
        self._clock = clock
        self._inferred = 0
        self._waiting: list[int] = []  # frames without a probe

    def prepare(self) -> None:
        """Loads the weights and runs the network once, so that the first frame does not wait for it."""
        torch.set_num_threads(self.config.threads)
        self._trained, self.card = load_network(self.config.weights)
        self.device = torch_device(self.config.device)
        optics, n = self.config.optics, self.config.optics.geometry.n_pixels
        probe = optics.load_probe() if optics.probe else np.ones((1, n, n), np.complex64)
        self._predictor_before = self._predictor_of(self._trained, probe)
        self._predictor_before.warm_up()

    def open(self, scan: Scan) -> None:
        """Makes room for patches; begins with the weights of the run, or those tuned before a restart."""
        n = self.config.optics.geometry.n_pixels
        self._scan, self._preprocess = scan, self.config.optics.preprocess(scan)
        self._columns: dict[str, Any] = {
            name: scan.column(name, writable=True, shape=(n, n)) for name in ("patches", "sigma")
        } | {name: scan.column(name, writable=True) for name in ("model", "inferred_s")}
        self._waiting = []
        self._network, self._version = self._trained, 0
        self._probe: Probe | None = None
        self._predictor = self._predictor_before
        self._model = self.card.column_value
        self._look_around()

    def handle(self, numbers: Numbers) -> None:
        """Stores patch and sigma of these frames; a frame is BAD if either is not finite."""
        self._look_around()
        if self._probe is None:
            self._waiting.extend(numbers.tolist())
        else:
            self._infer(numbers)

    def idle(self, deadline: float) -> bool:
        """Does a batch of the frames that had to wait for the probe; says whether there are more."""
        if self._waiting:
            self._look_around()
        if self._waiting and self._probe is not None:
            numbers, self._waiting = self._waiting[: self.batch_size], self._waiting[self.batch_size :]
            self._infer(np.array(numbers, np.int64))
            return bool(self._waiting)
        return False

    def close(self) -> None:
        """Does what still waits, if there is a probe; every patch is stored when its byte is."""
        while self.idle(self._clock()):
            pass

    def _look_around(self) -> None:
        """Take up a probe or weights that have come since."""
        if self._probe is None:
            self._probe = self.config.optics.probe_of(self._scan)
            if self._probe is not None and not self.config.optics.probe:
                self._predictor = self._predictor_of(self._network, self._probe)
        version, path = newest_version(self._scan, self._version)
        if path is None or self._probe is None:
            return
        self._version = version
        try:
            self._network, card = load_network(path)
        except (ValueError, OSError) as error:
            log.warning("weights tuned to %s are not taken up: %s", self._scan.name, error)
            return
        self._predictor = self._predictor_of(self._network, self._probe)
        self._model = card.column_value

    def _predictor_of(self, network: Network, probe: Probe) -> Predicting:
        uncertainty = self.config.uncertainty
        return build_predictor(network, probe, uncertainty, batch_size=self.batch_size, device=self.device)

    def _infer(self, numbers: Numbers) -> None:
        patches, sigma = self._predictor.predict(read_patterns(self._scan, self._preprocess, numbers))
        self._columns["patches"].write(numbers, patches)
        self._columns["sigma"].write(numbers, np.minimum(sigma, 6e4))
        self._columns["model"].write(numbers, self._model)
        self._columns["inferred_s"].write(numbers, self._clock())
        # One value that is not finite would spread over the whole mosaic and stay.
        is_finite = np.isfinite(patches).all(axis=(1, 2)) & np.isfinite(sigma).all(axis=(1, 2))
        self._scan.mark(self.name, numbers[is_finite], State.DONE)
        self._scan.mark(self.name, numbers[~is_finite], State.BAD)
        self._inferred += int(np.count_nonzero(is_finite))

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Has no door."""
        return []

    def counts(self) -> dict[str, int]:
        """Returns how many frames this process has done."""
        return {"inferred": self._inferred}
