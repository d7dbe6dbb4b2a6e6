"""The refined object as a file beside the columns: written by refinement, read by stitcher and recorder.

One file is replaced as a whole; a reader sees the old or the new one, never a mixture.
"""

import io
from pathlib import Path

import numpy as np

from operators.engine.config import RefinerSnapshot
from operators.geometry import Bounds
from stream.atomic import write_atomically

FILE_NAME = "refined.npz"


def write_snapshot(folder: Path, snapshot: RefinerSnapshot) -> None:
    """Replaces the snapshot in the scan's `folder`."""
    bounds = snapshot.bounds
    content = io.BytesIO()
    np.savez(
        content,
        object=snapshot.object,
        probe=snapshot.probe,
        illumination=snapshot.illumination,
        bounds=np.array([bounds.top, bounds.left, bounds.bottom, bounds.right]),
        error_history=np.asarray(snapshot.error_history, np.float64),
        n_frames=snapshot.n_frames,
        n_updates=snapshot.n_updates,
        error=snapshot.error,
        n_divergences=snapshot.n_divergences,
        withheld=snapshot.withheld,
    )
    write_atomically(folder / FILE_NAME, content.getvalue())


def read_snapshot(folder: Path) -> RefinerSnapshot | None:
    """Returns the newest snapshot in the scan's `folder`, None if refinement has not published yet."""
    try:
        with np.load(folder / FILE_NAME, allow_pickle=False) as file:
            return RefinerSnapshot(
                object=file["object"],
                probe=file["probe"],
                illumination=file["illumination"],
                bounds=Bounds(*(int(edge) for edge in file["bounds"])),
                error_history=tuple(float(error) for error in file["error_history"]),
                n_frames=int(file["n_frames"]),
                n_updates=int(file["n_updates"]),
                error=float(file["error"]),
                n_divergences=int(file["n_divergences"]),
                withheld=file["withheld"] if "withheld" in file else np.zeros((0, 2), np.int64),
            )
    except FileNotFoundError:
        return None
