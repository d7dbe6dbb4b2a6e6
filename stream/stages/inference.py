"""Stage: patterns through the network, patch and sigma out.

Works on every recorded frame at once, whether its position is known or not: frame and position meet later,
in the columns. Two things may change while a scan runs: a probe that was not known is found
(`stream.record.probe`), for which frames wait, and weights are tuned to the sample
(`stream.record.tuned_weights`): these are made ready by a second thread and taken up between two batches,
so that no frame waits for them. The column `model` says which weights made a patch, also of networks that
take turns.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from operators.arrays import Patches, Probe, get_array_module
from operators.network.ensemble import Predicting, turns
from operators.network.interface import Network
from operators.network.predictor import Results
from stream.files.weights import ModelCard, load_network
from stream.record.probe import STAGE as PROBE_STAGE
from stream.record.scan import Numbers, Scan, State
from stream.record.tuned_weights import newest_version
from stream.stages.inputs import Optics, read_patterns
from stream.stages.predictors import UncertaintyConfig, build_predictor, models_of, torch_device
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint

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
        Of the CPU, for the network or, where that runs on a GPU, for storing what it makes.
    device : str
        "cpu", "cuda" or "auto".
    uncertainty : UncertaintyConfig
        What else tells error bars beside the network itself.
    """

    optics: Optics
    weights: Path
    batch_size: int = 8
    deadline_s: float = 0.02
    threads: int = 1
    device: str = "auto"
    uncertainty: UncertaintyConfig = field(default_factory=UncertaintyConfig)


class _Batch(NamedTuple):
    """Frames that the network works on, which weights each of them gets, and what gives the results."""

    numbers: Numbers
    models: np.ndarray
    results: Results


class _Ready(NamedTuple):
    """What predicts, warm, and which weights make its patches, one for each turn (`models_of`)."""

    predictor: Predicting
    models: np.ndarray


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
        self._running: _Batch | None = None  # on the GPU
        self._probe: Probe | None = None  # that of the open scan
        self._coming: Future[_Ready] | None = None  # with newer weights

    def prepare(self) -> None:
        """Loads the weights and runs the network once, so that the first frame does not wait for it."""
        self._trained, self.card = load_network(self.config.weights)
        self.device = torch_device(self.config.device)
        self._on_gpu = self.device.startswith("cuda")
        torch.set_num_threads(1 if self._on_gpu else self.config.threads)
        self._xp = get_array_module("auto") if self._on_gpu else np
        self._each = ThreadPoolExecutor(self.config.threads).map if self.config.threads > 1 else map
        optics, n = self.config.optics, self.config.optics.geometry.n_pixels
        self._mask = optics.pattern_mask()
        probe = optics.load_probe() if optics.probe else np.ones((1, n, n), np.complex64)
        self._predictor_before, self._models_before = self._ready_with(self._trained, self.card, probe)

    def open(self, scan: Scan) -> None:
        """Makes room for patches; begins with the weights of the run, or those tuned before a restart."""
        n = self._predictor_before.crop
        self._scan, self._preprocess = scan, self.config.optics.preprocess(scan)
        self._columns: dict[str, Any] = {
            name: scan.column(name, writable=True, shape=(n, n)) for name in ("patches", "sigma")
        } | {name: scan.column(name, writable=True) for name in ("model", "inferred_s")}
        self._waiting, self._running = [], None
        self._version, self._coming = 0, None
        self._builder: Executor = ThreadPoolExecutor(1)  # one thread: a GPU records one run at a time
        self._probe = None
        self._predictor, self._models = self._predictor_before, self._models_before
        self._look_around()
        if self._coming is not None:
            wait([self._coming])
            self._look_around()

    def handle(self, numbers: Numbers) -> None:
        """Makes patch and sigma of these frames; a frame is BAD if either is not finite.

        They are stored at once or, on a GPU, in the next call of any method, while it works on the next.
        """
        self._look_around()
        if self._probe is None:
            self._waiting.extend(numbers.tolist())
        else:
            self._infer(numbers)

    def idle(self, deadline: float) -> bool:
        """Does a batch of the frames that had to wait for the probe; says whether there are more."""
        self._store()
        if self._waiting or self._probe is not None:
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
        self._store()
        self._probe = None
        self._builder.shutdown()  # waits for weights that come too late: the next scan begins without them

    def _look_around(self) -> None:
        """Take up a probe that has come since, and weights that are ready; see to the next ones."""
        if self._probe is None:
            self._probe = self.config.optics.probe_of(self._scan)
            if self._probe is not None and not self.config.optics.probe:
                ready = self._builder.submit(self._ready_with, self._trained, self.card, self._probe)
                self._predictor, self._models = ready.result()  # no frame can go before
        if self._probe is None:
            return
        if self._coming is not None and self._coming.done():
            self._take_up(self._coming)
            self._coming = None
        version, path = newest_version(self._scan, self._version)
        if path is not None and self._coming is None:
            self._version = version
            self._coming = self._builder.submit(self._ready_from, path, self._probe)

    def _take_up(self, coming: Future[_Ready]) -> None:
        try:
            ready = coming.result()
        except (ValueError, OSError) as error:
            log.warning("weights tuned to %s are not taken up: %s", self._scan.name, error)
            return
        self._store()  # what a GPU still works on goes before the memory that it works in
        self._predictor, self._models = ready

    def _ready_from(self, weights: Path, probe: Probe) -> _Ready:
        return self._ready_with(*load_network(weights), probe)

    def _ready_with(self, network: Network, card: ModelCard, probe: Probe) -> _Ready:
        predictor = build_predictor(
            network,
            probe,
            self.config.uncertainty,
            batch_size=self.batch_size,
            device=self.device,
            mask=self._mask,
        )
        predictor.warm_up()  # on a GPU the run is recorded here
        return _Ready(predictor, models_of(card, self.config.uncertainty))

    def _infer(self, numbers: Numbers) -> None:
        patterns = read_patterns(self._scan, self._preprocess, numbers, self._xp)
        models = self._models[turns(patterns, len(self._models))]
        batch = _Batch(numbers, models, self._predictor.submit(patterns))
        self._store()
        self._running = batch
        if not self._on_gpu:
            self._store()

    def _store(self) -> None:
        """Store what the network has made of the batch that it was given last."""
        if self._running is None:
            return
        (numbers, models, results), self._running = self._running, None
        patches, sigma = results()
        for name in ("patches", "sigma"):  # so that threads find room and need not make it
            self._columns[name].reserve(int(numbers.max()) + 1)
        shares = [np.array_split(values, self.config.threads) for values in (numbers, patches, sigma)]
        is_finite = np.concatenate([*self._each(self._store_patches, *shares)])
        self._columns["model"].write(numbers, models)
        self._columns["inferred_s"].write(numbers, self._clock())
        self._scan.mark(self.name, numbers[is_finite], State.DONE)
        self._scan.mark(self.name, numbers[~is_finite], State.BAD)
        self._inferred += int(np.count_nonzero(is_finite))

    def _store_patches(self, numbers: Numbers, patches: Patches, sigma: np.ndarray) -> np.ndarray:
        """Store patches and sigma, and return which frames have finite ones, (frame,) bool.

        One value that is not finite would spread over the whole mosaic and stay.
        """
        # torch's loops are several times as fast as NumPy's here, and at a GPU's rate it matters.
        patch_sum = torch.view_as_real(torch.from_numpy(patches)).sum((1, 2, 3))
        sigma_sum = torch.from_numpy(sigma).sum((1, 2))
        self._columns["patches"].write(numbers, patches)
        self._columns["sigma"].write(numbers, torch.from_numpy(sigma).clamp(max=6e4).half().numpy())
        return (patch_sum.isfinite() & sigma_sum.isfinite()).numpy()

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Has no door."""
        return []

    def counts(self) -> dict[str, int]:
        """Returns how many frames this process has done."""
        return {"inferred": self._inferred}
