"""Weights that were tuned during a scan, as files in its folder: one writer adds versions, inference takes them.

Separate from `stream.weights`, which knows what is in a file, so that whoever only asks which version made
what needs no torch. The counter `version` of the stage `finetune` says how many there are: a look at it costs
nothing, so that inference can look between any two batches.

    SCANS/0000-<name>/weights/0001-<model>.safetensors, 0002-...
"""

from pathlib import Path

import numpy as np

from stream.scan import Numbers, Scan

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


def version_path(scan: Scan, version: int, model_id: str) -> Path:
    """Returns where version 1, 2, ... of the weights belongs."""
    return scan.folder / FOLDER / f"{version:04d}-{model_id}.safetensors"


def newest_version(scan: Scan) -> tuple[int, Path | None]:
    """Returns the number of the newest weights tuned in this scan and their file; 0 and None without any."""
    version = scan.count(STAGE, "version")
    found = sorted((scan.folder / FOLDER).glob(f"{version:04d}-*.safetensors")) if version else []
    return version, found[0] if found else None
