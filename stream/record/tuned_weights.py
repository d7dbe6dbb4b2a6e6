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


def count_models(scan: Scan, numbers: Numbers) -> dict[str, int]:
    """Returns how many of the frames `numbers` got their patch from which weights, oldest frames first."""
    if not scan.has("model") or not numbers.size:
        return {}
    models, first, counts = np.unique(
        scan.column("model").read(numbers), return_index=True, return_counts=True
    )
    return {f"{models[i]:012x}": int(counts[i]) for i in np.argsort(first) if models[i]}


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
