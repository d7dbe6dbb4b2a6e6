"""What a recorded scan teaches a network: its refined object and probe, beside the patterns they explain.

The labels are made once, by an offline reconstruction, and lie beside the weights that are trained with
them: an interrupted training goes on with the same ones, and all processes of a training have the same
ones, though a GPU rounds differently each time.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import RecordedScan, open_recorded
from launch.offline.task import Task, options_for, task_of
from launch.results.pictures import WELL_LIT
from launch.training.evaluate import EvaluationScan, outcome_of, patch_squares
from launch.training.recipe import Recipe, ScanRecipe
from operators.arrays import Corners, Mask, Object, Patterns, Probe, abs2
from operators.geometry import window_corners
from operators.metrics.gauge import flattened
from operators.network.predictor import Predictor
from operators.optics.probe import phase_ramp
from stream.atomic import replacing

LABELS_VERSION = 2  # labels that an earlier one left are made again; 2 put the phase ramp into the probe


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLabels:
    """A refined scan, in the order of its frames.

    Attributes
    ----------
    object : (row, col) complex64
        Refined, without its mean phase ramp.
    probe : (mode, y, x) complex64
        Refined, with that ramp; sum of |P|^2 is the photons per frame.
    corners : (frame, 2) int64
        Top-left pixel of each window in `object`.
    patterns : (frame, ky, kx) float32, photons
        As measured and prepared.
    valid : (ky, kx) bool
        True where a pixel counts, corner-origin.
    """

    object: Object
    probe: Probe
    corners: Corners
    patterns: Patterns
    valid: Mask

    @classmethod
    def read(cls, path: Path) -> Self:
        """Returns the labels in a .npz file."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{field.name: file[field.name] for field in fields(cls)})

    def write(self, path: Path) -> None:
        """Writes the labels to a .npz file, in one step: a file that is there is whole."""
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    def split(self, held_out: float) -> int:
        """Returns how many frames may be trained on: the share `held_out` at the end of the scan may not."""
        return max(1, round(len(self.corners) * (1 - held_out)))


def with_scan(recipe: Recipe, source: str, directory: Path) -> Recipe:
    """Returns the recipe with the labels of a recorded scan, which lie in the folder of the weights.

    They are made unless they are there, from the same frames by the same refinement. Their probe is left as
    NAME-probe.npy, for the runs that use the network, and is that of the recipe where its optics are `file`
    without a path.

    Parameters
    ----------
    recipe : Recipe
        Its section `scan` says how the scan is refined and used; the defaults do unless there is one.
    source : str
        As for `launch.offline.recorded.open_recorded`.
    directory : Path

    Raises
    ------
    ValueError
        If there is no such scan, its patterns are not of the recipe's size, or it cannot be reconstructed.
    """
    section = recipe.scan or ScanRecipe()
    with open_recorded(source) as scan:
        task = refinement_of(scan, section, recipe.n_pixels)
        path = directory / f"{recipe.name}-labels-{fingerprint(task)[:12]}.npz"
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            make_labels(task).write(path)
        name = scan.name
    probe_path = directory / f"{recipe.name}-probe.npy"
    with replacing(probe_path) as partial, partial.open("wb") as file:
        np.save(file, ScanLabels.read(path).probe)
    section = section.model_copy(update={"name": name, "labels": path.name, "sha256": hash_of(path)})
    return recipe.model_copy(update={"scan": section, "probe": recipe.probe.of_scan(probe_path.absolute())})


def labels_of(recipe: Recipe, directory: Path) -> ScanLabels:
    """Returns the labels that a recipe was given by `with_scan`.

    Raises
    ------
    ValueError
        If it was given none, or the file has changed.
    """
    if recipe.scan is None or not recipe.scan.labels:
        raise ValueError(f"recipe {recipe.name!r} uses a scan: say which one with --from-scan SCAN")
    path = directory / recipe.scan.labels
    if hash_of(path) != recipe.scan.sha256:
        raise ValueError(
            f"{path} is not the file that the recipe was made for: delete it and train with --from-scan again"
        )
    return ScanLabels.read(path)


def hash_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refinement_of(scan: RecordedScan, section: ScanRecipe, n_pixels: int) -> Task:
    """Returns how the labels of a scan are made."""
    if scan.geometry is not None and scan.geometry.n_pixels != n_pixels:
        raise ValueError(
            f"{scan.called} has patterns of {scan.geometry.n_pixels} x {scan.geometry.n_pixels} pixels, "
            f"the recipe {n_pixels} x {n_pixels}: change network_config.n_pixels"
        )
    positions = {"refines_positions": section.refines_positions or None}
    options = options_for(scan, positions, epochs=section.epochs, n_modes=section.n_modes)
    return task_of(scan, options, scan.preprocess() if scan.preprocess else None)


def fingerprint(task: Task) -> str:
    """Returns the SHA-256 of what labels are made from: patterns, positions, probe, and how it is done."""
    digest = hashlib.sha256(repr((LABELS_VERSION, task.options, task.geometry)).encode())
    for constant in (task.preprocess.mask, task.scan.probe):
        digest.update(b"none" if constant is None else constant.tobytes())
    for parts in task.blocks():
        for part in parts:
            digest.update(part.tobytes())
    return digest.hexdigest()


def make_labels(task: Task) -> ScanLabels:
    """Returns what refinement makes of a scan; frames without a position are left out.

    Which of object and probe has a phase ramp is free. Simulated objects have none, and a network that must
    add one to its patches makes larger errors.
    """
    scan, preprocess = task.scan, task.preprocess
    result = reconstruct(scan, task.options, preprocess=preprocess)
    corners = window_corners(result.geometry.to_pixels(result.positions_m)) - result.bounds.origin
    object_, slope = flattened(result.object, result.photons > WELL_LIT * result.photons.max())
    return ScanLabels(
        object=object_,
        probe=result.probe * phase_ramp(result.probe.shape[1:], slope),
        corners=corners,
        patterns=task.patterns(task.used),
        valid=preprocess.mask,
    )


def held_out_error(predictor: Predictor, labels: ScanLabels, held_out: float) -> dict[str, float]:
    """Return `c` of the patches of the frames that were not trained on, against their labels."""
    rest, weights = slice(labels.split(held_out), None), abs2(labels.probe).sum(axis=0)
    if not len(labels.corners[rest]):
        return {}
    scan = EvaluationScan(labels.object, labels.corners[rest], labels.patterns[rest])
    error, variation, _ = patch_squares(outcome_of(predictor, weights, scan), weights)
    return {"scan_patch_c": float(np.sqrt(error / variation))}
