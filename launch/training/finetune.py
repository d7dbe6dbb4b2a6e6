"""Stage: tunes the network's weights to the sample while it is scanned, beside everything else.

Off by default. Labels are windows of the refined object, old samples are replayed, and a version is
published (`stream.record.tuned_weights`) only if it is better on the newest refined frames, from which
nothing was learned, and has forgotten little. Inference takes it up between two batches. The process has
the lowest priority and a budget; no stage waits for it, and the run goes on without it when it fails.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from launch.config.sections import FinetuneConfig
from launch.training.finetune_labels import Labels, refined_labels
from launch.training.recipe import Recipe
from launch.training.tuning import LabelledPatterns, Tuner
from operators.arrays import Probe, abs2
from operators.network.interface import Network, probe_tensor
from stream.files.weights import load_network, save_network
from stream.record.scan import Numbers, Scan, State
from stream.record.snapshot import read_snapshot
from stream.record.tuned_weights import STAGE, newest_version, version_path
from stream.stages.inputs import Optics
from stream.stages.stage import ScanWork

log = logging.getLogger(__name__)

MOST_VERSIONS = 60  # in a scan: every update of the live image counts the patches of each
LOOK_S = 2.0  # least time between two looks for labels
BLENDS = (1.0, 0.7, 0.4)  # shares of what was learned that are tried, the largest first


class Finetuning:
    """Worker: learns from refined frames, and offers what it has learned.

    Parameters
    ----------
    config : FinetuneConfig
    optics : Optics
    weights : Path
        Where learning begins in every scan.
    clock : callable
        Monotonic seconds.
    processor_clock : callable
        Seconds of processor time, which the budget counts.

    Attributes
    ----------
    network, card
        Where learning begins in every scan.
    recipe : Recipe
        Whose samples are replayed.

    Raises
    ------
    ValueError
        If the weights do not say how they were trained.
    """

    name = STAGE
    inputs: tuple[str, ...] = ("refinement",)
    waits_for: tuple[str, ...] = ()
    batch_size = 4096
    deadline_s = 0.0

    def __init__(
        self,
        config: FinetuneConfig,
        optics: Optics,
        weights: Path,
        clock: Callable[[], float] = time.monotonic,
        processor_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.config, self.optics = config, optics
        self.clock, self.processor_clock = clock, processor_clock
        torch.set_num_threads(1)
        self.network, self.card = load_network(weights)
        try:
            self.recipe = Recipe.model_validate(self.card.recipe)
        except ValueError as error:
            raise ValueError(
                f"{weights}: tuning replays what the weights were trained on, and their recipe "
                f"cannot be read: {error}"
            ) from error

    def open(self, scan: Scan) -> "ScanTuning":
        """Begins with the weights of the run; after a restart with those published last."""
        return ScanTuning(self, scan)


class _Lesson(NamedTuple):
    """Frames that refinement has labelled: those that are learned, and those kept aside to judge by."""

    learned: LabelledPatterns
    held_out: LabelledPatterns

    @classmethod
    def of(cls, labels: Labels, probe: Probe) -> "_Lesson":
        learned, held_out = (
            _samples(labels, which, probe) for which in (labels.is_learned, labels.is_held_out)
        )
        return cls(learned, held_out)


class ScanTuning(ScanWork):
    """What is learned from one scan; what was not offered when it closes is forgotten.

    Attributes
    ----------
    card : ModelCard
        Of the weights published last, or those of the run.
    """

    def __init__(self, stage: Finetuning, scan: Scan) -> None:
        self._stage, self._config, self._scan = stage, stage.config, scan
        self._preprocess = stage.optics.preprocess(scan)
        self._counters = scan.counters(STAGE, writable=True)
        self._held: list[int] = scan.done(STAGE).tolist()
        _, path = newest_version(scan)
        self._current, self.card = (stage.network, stage.card) if path is None else load_network(path)
        self._probe: Probe | None = None
        self._lesson: _Lesson | None = None
        self._tuner: Tuner | None = None
        self._labelled_version = self._n_labelled = 0
        self._looks_at = float("-inf")
        self._spent_s = self._offered_s = 0.0
        self._rests_until = float("-inf")

    def handle(self, numbers: Numbers) -> None:
        """Notes that these frames have been refined."""
        self._held.extend(numbers.tolist())
        self._scan.mark(STAGE, numbers, State.DONE)

    def idle(self, deadline: float) -> bool:
        """Learns from one batch, and now and then offers what was learned; says whether to go on at once."""
        # What is learned when nothing more is inferred is of no use.
        if self._scan.count("inference", "closed") or self._stage.clock() < self._rests_until:
            return False
        if self._spent_s >= self._config.budget_s or self._counters["version"] >= MOST_VERSIONS:
            return False
        before_s = self._stage.processor_clock()
        is_learning = self._learn()
        spent_s = self._stage.processor_clock() - before_s
        self._spent_s += spent_s
        self._rests_until = self._stage.clock() + spent_s * (1 / self._config.share - 1)
        return is_learning and self._config.share == 1

    def counts(self) -> dict[str, int]:
        """Returns how far the learning is."""
        n_steps = self._tuner.n_steps if self._tuner else 0
        return {"versions": self._counters["version"], "steps": n_steps}

    def _learn(self) -> bool:
        if self._probe is None:
            self._probe = self._stage.optics.probe_of(self._scan)
        if (probe := self._probe) is None:
            return False
        if self._wants_labels:
            self._lesson = self._newest_lesson(probe) or self._lesson
        if (lesson := self._lesson) is None or not self._has_enough:
            return False
        if self._tuner is None:
            stage, modes = self._stage, probe_tensor(probe)
            self._tuner = Tuner(self._current, stage.recipe, modes, self._config, stage.network)
        self._tuner.step(lesson.learned)
        if self._is_due:
            self._offered_s = self._spent_s
            self._offer(self._tuner, lesson)
        return True

    @property
    def _wants_labels(self) -> bool:
        """Whether there are new ones and a use for them: they change little from one picture to the next."""
        if self._scan.count("refinement", "version") == self._labelled_version:
            return False
        n_new = len(self._held) - self._n_labelled
        is_wanted = n_new >= self._config.first_frames or self._is_due or not self._has_enough
        return is_wanted and self._stage.clock() >= self._looks_at

    @property
    def _has_enough(self) -> bool:
        return self._lesson is not None and len(self._lesson.learned.objects) >= self._config.first_frames

    @property
    def _is_due(self) -> bool:
        return self._spent_s - self._offered_s >= self._config.offer_s

    def _newest_lesson(self, probe: Probe) -> _Lesson | None:
        self._looks_at = self._stage.clock() + LOOK_S
        version = self._scan.count("refinement", "version")
        snapshot = read_snapshot(self._scan.folder)
        if snapshot is None or not snapshot.is_finite or not self._scan.has("visits"):
            return None
        self._labelled_version, self._n_labelled = version, len(self._held)
        labels = refined_labels(
            self._scan,
            np.array(self._held, np.int64),
            snapshot,
            probe,
            geometry=self._stage.optics.geometry,
            preprocess=self._preprocess,
            least_visits=self._config.least_visits,
        )
        return _Lesson.of(labels, probe)

    def _offer(self, tuner: Tuner, lesson: _Lesson) -> None:
        """Publish what was learned if it is better on frames kept aside and has forgotten little."""
        config, error_now = self._config, tuner.error(self._current, lesson.held_out)
        for share in BLENDS:
            network = tuner.blended(share)
            error, forgotten = tuner.error(network, lesson.held_out), tuner.forgotten(network)
            log.info(
                "%s: %d steps, %g of them: error %.3f, now %.3f; %.3f forgotten",
                *(self._scan.name, tuner.n_steps, share, error, error_now, forgotten),
            )
            if error < (1 - config.least_gain) * error_now and forgotten <= config.most_forgotten:
                metrics = {"error": error, "before": error_now, "forgotten": forgotten}
                self._publish(network, metrics, len(lesson.learned.objects))
                return

    def _publish(self, network: Network, metrics: dict[str, float], n_frames: int) -> None:
        scan, version = self._scan, self._counters["version"] + 1
        card = replace(
            self.card,
            parent=self.card.model_id,
            tuned_on=f"{scan.name}: {n_frames} frames",
            metrics=metrics,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.card = save_network(version_path(scan, version), network, card)
        self._current = network
        self._counters["version"] = version
        log.info("%s: version %d of the weights is %s", scan.name, version, self.card.model_id)


def _samples(labels: Labels, which: np.ndarray, probe: Probe) -> LabelledPatterns:
    intensities = labels.patterns[which] / np.float32(abs2(probe).sum())
    return LabelledPatterns(torch.from_numpy(intensities), torch.from_numpy(labels.objects[which]))
