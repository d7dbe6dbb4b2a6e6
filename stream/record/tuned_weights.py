"""Weights tuned during a scan, as files in its folder: one writer adds versions, inference takes them.

The counter `version` of the stage `finetune` says how many there are: a look at it costs nothing, so that
inference can look between any two batches.

    SCANS/0000-<name>/weights/0001.safetensors, 0001.json, 0002 ...
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream.record.scan import Numbers, Scan

STAGE = "finetune"
FOLDER = "weights"


class ModelCounts:
    """How many frames of a scan got their patch from which weights; counts what is added, once."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._found: dict[int, tuple[int, int]] = {}  # first frame and how many, by model

    def add(self, numbers: Numbers) -> None:
        """Counts more frames."""
        if not numbers.size or not self._scan.has("model"):
            return
        models = self._scan.column("model").read(numbers)
        for model in np.unique(models[models > 0]).tolist():
            of_model = numbers[models == model]
            first, n = self._found.get(model, (int(of_model[0]), 0))
            self._found[model] = min(first, int(of_model.min())), n + len(of_model)

    def by_id(self) -> dict[str, int]:
        """Returns the counts by version of the weights, that of the oldest frame first."""
        oldest_first = sorted(self._found.items(), key=lambda item: item[1][0])
        return {f"{model:012x}": n for model, (_, n) in oldest_first}


def count_models(scan: Scan, numbers: Numbers) -> dict[str, int]:
    """Returns how many of the frames `numbers` got their patch from which weights, oldest frames first."""
    counts = ModelCounts(scan)
    counts.add(numbers)
    return counts.by_id()


def ensemble_id(model_ids: Sequence[str]) -> str:
    """Returns the version of patches that are the mean of several networks': it is that of no file.

    A hash of the versions of the networks, in their order: `weights`, then `members`.
    """
    return hashlib.sha256(" ".join(model_ids).encode()).hexdigest()[:12]


def version_path(scan: Scan, version: int) -> Path:
    """Returns where version 1, 2, ... of the weights belongs."""
    return scan.folder / FOLDER / f"{version:04d}.safetensors"


def newest_version(scan: Scan, known: int = 0) -> tuple[int, Path | None]:
    """Returns the number of the newest weights tuned in this scan, and their file if it is above `known`."""
    version = scan.count(STAGE, "version")
    return version, version_path(scan, version) if version > known else None
