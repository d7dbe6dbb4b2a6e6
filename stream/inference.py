"""Stage: patterns through the network, patch and sigma out.

Works on every recorded frame at once, whether its position is known or not: frame and position meet later, in
the columns.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators.predict import Predictor
from stream.prepare import Optics, read_patterns
from stream.scan import Numbers, Scan, State
from stream.sockets import Endpoint
from stream.weights import load_network
from stream.wire import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """Settings of the inference stage.

    Attributes
    ----------
    optics : Optics
        With a known probe: it is an input of the network.
    weights : Path
        .safetensors file.
    batch_size : int
        Frames per call of the network; the last call of a scan may hold fewer.
    deadline_s : float
        A frame waits no longer than this for its batch to fill.
    threads : int
        Of the CPU.
    device : str
        "cpu", "cuda" or "auto".
    """

    optics: Optics
    weights: Path
    batch_size: int = 8
    deadline_s: float = 0.03
    threads: int = 1
    device: str = "auto"


class Inference:
    """Worker: frames of its scan through the network."""

    name = "inference"
    inputs: tuple[str, ...] = ("subscriber",)
    waits_for: tuple[str, ...] = ()
    door: Endpoint | None = None
    newest_first = True

    def __init__(self, config: InferenceConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self.batch_size, self.deadline_s = config, config.batch_size, config.deadline_s
        self._clock = clock
        self._inferred = 0

    def prepare(self) -> None:
        """Loads the weights and runs the network once, so that the first frame does not wait for it."""
        torch.set_num_threads(self.config.threads)
        network, self.card = load_network(self.config.weights)
        self.device = self.config.device
        if self.device == "auto":
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        probe = self.config.optics.load_probe()
        self._predictor = Predictor(network, probe, batch_size=self.batch_size, device=self.device)
        self._predictor.warm_up()

    def open(self, scan: Scan) -> None:
        """Makes room for patches."""
        n = self.config.optics.geometry.n_pixels
        self._scan, self._preprocess = scan, self.config.optics.preprocess(scan)
        self._columns: dict[str, Any] = {
            name: scan.column(name, writable=True, shape=(n, n)) for name in ("patches", "sigma")
        } | {name: scan.column(name, writable=True) for name in ("model", "inferred_s")}
        self._model = int(self.card.model_id[:15], 16)

    def handle(self, numbers: Numbers) -> None:
        """Stores patch and sigma of these frames; a frame is BAD if either is not finite."""
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

    def idle(self, deadline: float) -> bool:
        """Has nothing to do between frames."""
        return False

    def close(self) -> None:
        """Has nothing left: every patch is stored when its byte is."""

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Has no door."""
        return []

    def counts(self) -> dict[str, int]:
        """Returns how many frames this process has done."""
        return {"inferred": self._inferred}
