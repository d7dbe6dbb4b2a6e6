"""One process of a training from a scan, whose refinement differs each time, as it does by rounding on a GPU.

    torchrun -m tests.helpers.launch.scan_worker RECIPE SCAN OUTPUT [CUT]

CUT is the step after whose report the training is interrupted. OUTPUT/refined gets a line per refinement.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from launch.offline.task import Task
from launch.training import scan_labels
from launch.training.checkpoint import TrainingReport
from launch.training.recipe import read_recipe
from launch.training.train import train


def main(recipe: Path, scan: str, output: Path, cut: int | None) -> None:
    """Train; the labels of each refinement have random errors of their own."""
    make_labels = scan_labels.make_labels

    def noisy_labels(task: Task) -> scan_labels.ScanLabels:
        with (output / "refined").open("a") as file:
            file.write(f"process {os.environ['RANK']}\n")
        labels = make_labels(task)
        errors = np.random.default_rng().standard_normal(labels.object.shape)
        return replace(labels, object=labels.object + np.complex64(1e-6) * errors.astype(np.float32))

    def on_report(report: TrainingReport) -> None:
        if report.step == cut:
            raise KeyboardInterrupt

    scan_labels.make_labels = noisy_labels
    train(read_recipe(recipe), output, from_scan=scan, on_report=on_report)


if __name__ == "__main__":
    recipe, scan, output, *cut = sys.argv[1:]
    main(Path(recipe), scan, Path(output), int(cut[0]) if cut else None)
