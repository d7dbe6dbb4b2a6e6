"""Stage: tunes the network's weights to the sample while it is scanned, beside everything else.

Off by default. Labels are windows of the refined object, old samples are replayed, and a version is
published (`stream.record.tuned_weights`) only if it is better on the newest refined frames, from which
nothing was learned, and has forgotten little. Inference takes it up between two batches. The process has
the lowest priority and a budget; no stage waits for it, and the run goes on without it when it fails.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from launch.training.finetune_labels import Labels, refined_labels
from launch.training.recipe import Recipe
from launch.training.tuning import Samples, Tuner, TuningConfig
from operators.arrays import Probe, abs2
from operators.network.interface import Network, probe_tensor
from stream.files.weights import load_network, save_network
from stream.record.scan import Numbers, Scan, State
from stream.record.snapshot import read_snapshot
from stream.record.tuned_weights import STAGE, newest_version, version_path
from stream.stages.inputs import Optics
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)

MOST_VERSIONS = 60  # in a scan: every update of the live image counts the patches of each
LOOK_S = 2.0  # least time between two looks for labels
BLENDS = (1.0, 0.7, 0.4)  # shares of what was learned that are tried, the largest first


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuningConfig:
    """Settings of the stage; what is not said here is said at `launch.config.stages.FinetuneSection`.

    Attributes
    ----------
    optics : Optics
    weights : Path
        Where learning begins in every scan.
    tuning : TuningConfig
    nice : int
        Added to the priority number once everything is loaded: the start of a run waits for that.
    """

    optics: Optics
    weights: Path
    tuning: TuningConfig = field(default_factory=TuningConfig)
    budget_s: float = 120.0
    share: float = 1.0
    first_frames: int = 64
    least_visits: int = 12
    offer_s: float = 10.0
    least_gain: float = 0.03
    most_forgotten: float = 0.1
    nice: int = 0


class Finetuning:
    """Worker: learns from refined frames, and offers what it has learned.

    Parameters
    ----------
    config : FinetuningConfig
    clock : callable
        Monotonic seconds.
    processor_clock : callable
        Seconds of processor time, which the budget counts.
    """

    name = STAGE
    inputs: tuple[str, ...] = ("refinement",)
    waits_for: tuple[str, ...] = ()
    door: Endpoint | None = None
    newest_first = False
    batch_size = 4096
    deadline_s = 0.0

    def __init__(
        self,
        config: FinetuningConfig,
        clock: Callable[[], float] = time.monotonic,
        processor_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.config, self._clock, self._processor_clock = config, clock, processor_clock
        self._scan: Scan | None = None

    def prepare(self) -> None:
        """Loads the weights, and the recipe whose samples are replayed.

        Raises
        ------
        ValueError
            If the weights do not say how they were trained.
        """
        torch.set_num_threads(1)
        self._trained, self._card = load_network(self.config.weights)
        try:
            self._recipe = Recipe.model_validate(self._card.recipe)
        except ValueError as error:
            raise ValueError(
                f"{self.config.weights}: tuning replays what the weights were trained on, and their recipe "
                f"cannot be read: {error}"
            ) from error
        os.nice(self.config.nice)

    def open(self, scan: Scan) -> None:
        """Begins with the weights of the run; after a restart with those published last."""
        self._scan = scan
        self._preprocess = self.config.optics.preprocess(scan)
        self._counters = scan.counters(self.name, writable=True)
        self._held: list[int] = np.flatnonzero(scan.states(self.name) == State.DONE).tolist()
        self._current, self._current_card = self._trained, self._card
        _, path = newest_version(scan)
        if path is not None:
            self._current, self._current_card = load_network(path)
        self._tuner: Tuner | None = None
        self._labels: Labels | None = None
        self._probe: Probe | None = None
        self._labelled_version = self._n_labelled = 0
        self._looks_at = float("-inf")
        self._spent_s = self._offered_s = 0.0
        self._rests_until = float("-inf")

    def handle(self, numbers: Numbers) -> None:
        """Notes that these frames have been refined."""
        self._held.extend(numbers.tolist())
        self._open_scan.mark(self.name, numbers, State.DONE)

    def idle(self, deadline: float) -> bool:
        """Learns from one batch, and now and then offers what was learned; says whether to go on at once."""
        # What is learned when nothing more is inferred is of no use.
        if self._scan is None or self._scan.count("inference", "closed") or self._clock() < self._rests_until:
            return False
        if self._spent_s >= self.config.budget_s or self._counters["version"] >= MOST_VERSIONS:
            return False
        before_s = self._processor_clock()
        is_learning = self._learn(self._scan)
        spent_s = self._processor_clock() - before_s
        self._spent_s += spent_s
        self._rests_until = self._clock() + spent_s * (1 / self.config.share - 1)
        return is_learning and self.config.share == 1

    def close(self) -> None:
        """Leaves the scan; what was not offered is forgotten."""
        self._scan = self._tuner = self._labels = None

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Has no door."""
        return []

    def counts(self) -> dict[str, int]:
        """Returns how far the learning is."""
        if self._scan is None:
            return {}
        n_steps = self._tuner.n_steps if self._tuner else 0
        return {"versions": self._counters["version"], "steps": n_steps}

    @property
    def _open_scan(self) -> Scan:
        assert self._scan is not None  # noqa: S101  (the loop opens before it calls)
        return self._scan

    def _learn(self, scan: Scan) -> bool:
        if self._probe is None:
            self._probe = self.config.optics.probe_of(scan)
        if (probe := self._probe) is None:
            return False
        self._look_for_labels(scan, probe)
        if not self._has_enough:
            return False
        if self._tuner is None:
            modes = probe_tensor(probe)
            self._tuner = Tuner(self._current, self._recipe, modes, self.config.tuning, self._trained)
        self._tuner.step(self._learned)
        if self._is_due:
            self._offered_s = self._spent_s
            self._offer(scan, self._tuner)
        return True

    def _look_for_labels(self, scan: Scan, probe: Probe) -> None:
        version = scan.count("refinement", "version")
        n_new = len(self._held) - self._n_labelled
        # Labels change little from one picture to the next: they are renewed for more frames, or a trial.
        is_wanted = n_new >= self.config.first_frames or self._is_due or not self._has_enough
        if version == self._labelled_version or self._clock() < self._looks_at or not is_wanted:
            return
        self._looks_at = self._clock() + LOOK_S
        snapshot = read_snapshot(scan.folder)
        if snapshot is None or not snapshot.is_finite or not scan.has("visits"):
            return
        self._labelled_version, self._n_labelled = version, len(self._held)
        self._labels = refined_labels(
            scan,
            np.array(self._held, np.int64),
            snapshot,
            probe,
            geometry=self.config.optics.geometry,
            preprocess=self._preprocess,
            least_visits=self.config.least_visits,
        )
        self._learned: Samples = _samples(self._labels, self._labels.is_learned, probe)
        self._held_out: Samples = _samples(self._labels, self._labels.is_held_out, probe)

    @property
    def _has_enough(self) -> bool:
        return self._labels is not None and self._labels.is_learned.sum() >= self.config.first_frames

    @property
    def _is_due(self) -> bool:
        return self._spent_s - self._offered_s >= self.config.offer_s

    def _offer(self, scan: Scan, tuner: Tuner) -> None:
        """Publish what was learned if it is better on frames kept aside and has forgotten little."""
        error_now = tuner.error(self._current, self._held_out)
        for share in BLENDS:
            network = tuner.blended(share)
            error, forgotten = tuner.error(network, self._held_out), tuner.forgotten(network)
            log.info(
                "%s: %d steps, %g of them: error %.3f, now %.3f; %.3f forgotten",
                *(scan.name, tuner.n_steps, share, error, error_now, forgotten),
            )
            if error < (1 - self.config.least_gain) * error_now and forgotten <= self.config.most_forgotten:
                self._publish(scan, network, {"error": error, "before": error_now, "forgotten": forgotten})
                return

    def _publish(self, scan: Scan, network: Network, metrics: dict[str, float]) -> None:
        version, n_frames = self._counters["version"] + 1, len(self._learned.objects)
        card = replace(
            self._current_card,
            parent=self._current_card.model_id,
            tuned_on=f"{scan.name}: {n_frames} frames",
            metrics=metrics,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._current_card = save_network(version_path(scan, version), network, card)
        self._current = network
        self._counters["version"] = version
        log.info("%s: version %d of the weights is %s", scan.name, version, self._current_card.model_id)


def _samples(labels: Labels, which: np.ndarray, probe: Probe) -> Samples:
    intensities = labels.patterns[which] / np.float32(abs2(probe).sum())
    return Samples(torch.from_numpy(intensities), torch.from_numpy(labels.objects[which]))
