"""How the error of a scan's object fell, epoch by epoch: written by refinement, read by whoever draws it.

    SCANS/0000-<name>/error_curve.npy      one row per epoch: epoch, error, n_frames, time_s

It is replaced as a whole together with the snapshot, goes on after a restart of the stage, and keeps what was
before an object was started again.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.atomic import DiskFullError, write_atomically

FILE_NAME = "error_curve.npy"
_ROW = np.dtype([("epoch", "<f8"), ("error", "<f8"), ("n_frames", "<i8"), ("time_s", "<f8")])


class EpochError(NamedTuple):
    """The end of one epoch.

    Attributes
    ----------
    epoch : float
        Updates per frame held by then; it falls back when many frames have come.
    error : float
        Amplitude error of the frames held, as `RefinerSnapshot.error`.
    n_frames : int
        Frames held.
    time_s : float
        Monotonic clock of this machine, as `received_s` of the frames.
    """

    epoch: float
    error: float
    n_frames: int
    time_s: float


def write_error_curve(folder: Path, rows: Sequence[EpochError]) -> None:
    """Replaces the curve in the scan's `folder`; a full disk costs the curve, not the stage."""
    content = io.BytesIO()
    np.save(content, np.array(rows, _ROW))
    with contextlib.suppress(DiskFullError):
        write_atomically(folder / FILE_NAME, content.getvalue())


def read_error_curve(folder: Path) -> NDArray[np.void]:
    """Returns (epoch,) records with the fields of `EpochError`; none before the first is published."""
    try:
        curve: NDArray[np.void] = np.load(folder / FILE_NAME, allow_pickle=False)
    except FileNotFoundError:
        return np.zeros(0, _ROW)
    return curve
