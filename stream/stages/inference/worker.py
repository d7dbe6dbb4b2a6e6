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
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from operators.arrays import Array, Patches, Probe, abs2, get_array_module
from operators.network.ensemble import turns
from operators.network.interface import Network, Predicting, Results
from stream.files.weights import ModelCard, load_network
from stream.record.ground_order import GroundOrder
from stream.record.handover import NETWORK
from stream.record.probe import STAGE as PROBE_STAGE
from stream.record.scan import Numbers, Scan
from stream.record.tuned_weights import newest_version
from stream.stages.config import NetworkConfig
from stream.stages.inference.patch_columns import PatchColumns
from stream.stages.inference.predictors import build_predictor, models_of, torch_device
from stream.stages.inputs import Optics, read_corners, read_patterns
from stream.stages.stage import ScanWork

log = logging.getLogger(__name__)


class WarmPredictor(NamedTuple):
    """What predicts, warm, and which weights make its patches, one for each turn (`models_of`)."""

    predictor: Predicting
    models: np.ndarray


class Inference:
    """Worker: frames of its scan through the network.

    Parameters
    ----------
    config : NetworkConfig
        With weights.
    optics : Optics
        The probe is an input of the network; where none is known it is found during the scan.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    network, card
        As trained.
    before : WarmPredictor
        With the weights of the run and the known probe, or one in its place.
    stores_later : bool
        Whether a batch is stored when the next one has been submitted: a GPU works on that meanwhile.

    Raises
    ------
    ValueError, OSError
        If weights, probe or mask cannot be used.
    """

    name = NETWORK
    inputs: tuple[str, ...] = ("subscriber",)

    def __init__(
        self, config: NetworkConfig, optics: Optics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if config.weights is None:
            raise ValueError("network.weights: the inference stage needs weights")
        self.config, self.optics, self.clock = config, optics, clock
        self.batch_size, self.deadline_s = config.batch_size, config.deadline_s
        self.waits_for: tuple[str, ...] = () if optics.probe else (PROBE_STAGE,)
        self.network, self.card = load_network(config.weights)
        self.device = torch_device(config.device)
        self.stores_later = on_gpu = self.device.startswith("cuda")
        torch.set_num_threads(1)  # of each predictor
        self.xp = get_array_module("auto") if on_gpu else np
        self.each = ThreadPoolExecutor(config.threads).map if config.threads > 1 else map
        n = optics.geometry.n_pixels
        self._mask = optics.pattern_mask()
        probe = optics.load_probe() if optics.probe else np.ones((1, n, n), np.complex64)
        self.before = self.warm_predictor(self.network, self.card, probe)

    def open(self, scan: Scan) -> "ScanInference":
        """Makes room for patches; begins with the weights of the run, or those tuned before a restart."""
        return ScanInference(self, scan)

    def warm_predictor(self, network: Network, card: ModelCard, probe: Probe) -> WarmPredictor:
        """Returns what predicts with this network; it has run once, so that no frame waits for it."""
        predictor = build_predictor(network, probe, self.config, device=self.device, mask=self._mask)
        predictor.warm_up()  # on a GPU the run is recorded here
        return WarmPredictor(predictor, models_of(card, self.config))


class NewestWeights:
    """What predicts in one scan: with its probe once that is there, and the newest weights that are ready."""

    def __init__(self, stage: Inference, scan: Scan) -> None:
        self._stage, self._scan = stage, scan
        self._builder: Executor = ThreadPoolExecutor(1)  # one thread: a GPU records one run at a time
        self._probe: Probe | None = None
        self._ready = stage.before
        self._version = 0
        self._coming: Future[WarmPredictor] | None = None
        self.look()
        if self._coming is not None:  # tuned before a restart
            wait([self._coming])

    def look(self) -> WarmPredictor | None:
        """Returns what predicts now, None while the scan has no probe; sees to newer weights."""
        if self._probe is None:
            self._probe = self._find_probe()
        if self._probe is None:
            return None
        if self._coming is not None and self._coming.done():
            self._take_up(self._coming)
            self._coming = None
        version, path = newest_version(self._scan, self._version)
        if path is not None and self._coming is None:
            self._version = version
            self._coming = self._builder.submit(self._load, path, self._probe)
        return self._ready

    def illumination(self) -> Array | None:
        """Returns |P|^2 summed over modes, (y, x) float32, photons, None while the scan has no probe."""
        if self._probe is None:
            self._probe = self._find_probe()
        return None if self._probe is None else abs2(self._probe).sum(axis=0)

    def close(self) -> None:
        """Waits for weights that come too late: the next scan begins without them."""
        self._builder.shutdown()

    def _find_probe(self) -> Probe | None:
        stage = self._stage
        probe = stage.optics.probe_of(self._scan)
        if probe is not None and not stage.optics.probe:
            ready = self._builder.submit(stage.warm_predictor, stage.network, stage.card, probe)
            self._ready = ready.result()  # no frame can go before
        return probe

    def _load(self, weights: Path, probe: Probe) -> WarmPredictor:
        return self._stage.warm_predictor(*load_network(weights), probe)

    def _take_up(self, coming: Future[WarmPredictor]) -> None:
        try:
            self._ready = coming.result()
        except (ValueError, OSError) as error:
            log.warning("weights tuned to %s are not taken up: %s", self._scan.name, error)


class _Batch(NamedTuple):
    """Frames that the network works on, which weights each of them gets, and what gives the results."""

    numbers: Numbers
    models: np.ndarray
    results: Results
    predictor: Predicting  # held until it is through: a GPU works in its memory


class Passed(NamedTuple):
    """What the network has made of a batch.

    Attributes
    ----------
    numbers : (frame,) int64
    models : (frame,) uint64
        Which weights made each patch.
    patches : (frame, y, x) complex64
    sigma : (frame, y, x) float32, rad
    """

    numbers: Numbers
    models: np.ndarray
    patches: Patches
    sigma: np.ndarray


class ScanPasses:
    """Frames of one scan through the network, batch by batch.

    Parameters
    ----------
    stage : Inference
    scan : Scan

    Attributes
    ----------
    weights : NewestWeights
    """

    def __init__(self, stage: Inference, scan: Scan) -> None:
        self._stage, self._scan = stage, scan
        self._preprocess = stage.optics.preprocess(scan)
        self.weights = NewestWeights(stage, scan)
        self._running: _Batch | None = None  # not taken yet

    def infer(self, ready: WarmPredictor, numbers: Numbers) -> Passed | None:
        """Sends these frames through the network; returns what came of them or, of a GPU, of those before.

        It works on these meanwhile.
        """
        patterns = read_patterns(self._scan, self._preprocess, numbers, self._stage.xp)
        models = ready.models[turns(patterns, len(ready.models))]
        batch = _Batch(numbers, models, ready.predictor.submit(patterns), ready.predictor)
        before, self._running = self._running, batch
        return _passed(before) if self._stage.stores_later else self.flush()

    def flush(self) -> Passed | None:
        """Waits for the batch that the network was given last and returns it, None if it was returned."""
        batch, self._running = self._running, None
        return _passed(batch)


def _passed(batch: _Batch | None) -> Passed | None:
    return None if batch is None else Passed(batch.numbers, batch.models, *batch.results())


class ScanInference(ScanWork):
    """Frames of one scan through the network."""

    def __init__(self, stage: Inference, scan: Scan) -> None:
        self._stage = stage
        self._passes = ScanPasses(stage, scan)
        self._columns = PatchColumns(scan, stage.before.predictor.crop)
        corners_of = partial(read_corners, scan, stage.optics.geometry)
        self._order = GroundOrder(scan, NETWORK, corners_of, self._passes.weights.illumination)
        self._waiting: list[int] = []  # frames without a probe
        self._n_inferred = 0

    def first_of(self, ready: Numbers, n_most: int) -> Numbers:
        """Returns those that show the most new ground."""
        return self._order.first_of(ready, n_most)

    def handle(self, numbers: Numbers) -> None:
        """Makes patch and sigma of these frames; a frame is BAD if either is not finite.

        They are stored at once or, on a GPU, in the next call of any method, while it works on the next.
        """
        self._order.take(numbers)
        ready = self._passes.weights.look()
        if ready is None:
            self._waiting.extend(numbers.tolist())
        else:
            self._store(self._passes.infer(ready, numbers))
            self._infer_waiting(ready)  # as many: while frames keep coming there is no other time for these

    def idle(self, deadline: float) -> bool:
        """Does a batch of the frames that had to wait for the probe; says whether there are more."""
        self._store(self._passes.flush())
        ready = self._passes.weights.look()
        if ready is not None:
            self._infer_waiting(ready)
        return ready is not None and bool(self._waiting)

    def close(self) -> None:
        """Does what still waits, if there is a probe; every patch is stored when its byte is."""
        while self.idle(self._stage.clock()):
            pass
        self.hand_over()

    def hand_over(self) -> None:
        """Stores what the network has done; its other frames stay PENDING."""
        self._store(self._passes.flush())
        self._passes.weights.close()

    def counts(self) -> dict[str, int]:
        """Returns how many frames of the scan this process has done."""
        return {"inferred": self._n_inferred}

    def _infer_waiting(self, ready: WarmPredictor) -> None:
        size = self._stage.batch_size
        numbers, self._waiting = self._waiting[:size], self._waiting[size:]
        if numbers:
            self._store(self._passes.infer(ready, np.array(numbers, np.int64)))

    def _store(self, passed: Passed | None) -> None:
        if passed is None:
            return
        numbers, models, patches, sigma = passed
        self._columns.reserve(numbers)
        shares = [np.array_split(values, self._stage.config.threads) for values in (numbers, patches, sigma)]
        is_good = np.concatenate([*self._stage.each(self._store_patches, *shares)])
        self._columns.settle(numbers, models, is_good, self._stage.clock())
        self._n_inferred += int(np.count_nonzero(is_good))

    def _store_patches(self, numbers: Numbers, patches: Patches, sigma: np.ndarray) -> np.ndarray:
        is_good, halves = judged(patches, sigma)
        self._columns.write(numbers, patches, halves)
        return is_good


def judged(patches: Patches, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which frames have finite patches and sigma, (frame,) bool, and sigma as float16.

    One value that is not finite would spread over the whole mosaic and stay.
    """
    # torch's loops are several times as fast as NumPy's here, and at a GPU's rate it matters.
    patch_sum = torch.view_as_real(torch.from_numpy(patches)).sum((1, 2, 3))
    sigma_sum = torch.from_numpy(sigma).sum((1, 2))
    halves = torch.from_numpy(sigma).clamp(max=6e4).half().numpy()
    return (patch_sum.isfinite() & sigma_sum.isfinite()).numpy(), halves
