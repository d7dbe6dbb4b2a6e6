"""What a recorded scan tells of the beamline that it is from."""

from pathlib import Path
from typing import Any

import numpy as np

from launch.config.reading import Key
from launch.init.told import Told
from launch.offline.recorded import RecordedScan, open_recorded
from operators.arrays import Mask
from operators.geometry import Geometry
from operators.orientation.centre import beam_centre

WHOLE = 256  # pixels: frames up to this side are used as they are
_STEP = 32  # of the side of what is used of larger ones
_LIGHT = 0.999  # share that lies in it
_FRAMES = 64


def tell_of_scan(told: Told, path: Path) -> Mask | None:
    """Adds what the scan in a file says; returns which detector pixels are valid, None if all are.

    Parameters
    ----------
    told : Told
    path : Path
        As for `launch.offline.recorded.open_recorded`.

    Raises
    ------
    ValueError
        If it is no scan.
    """
    with open_recorded(str(path)) as scan:
        names = [name for name in Geometry.__slots__ if name != "n_pixels"]
        known = scan.told if scan.geometry is None else {name: getattr(scan.geometry, name) for name in names}
        told.add(path.name, {("geometry", name): float(value) for name, value in known.items()})
        told.add(path.name, _window(scan))
        told.notes += scan.notes
        told.add(f"as `ptychostream replay {path.name}` sends them", {("positions", "unit"): "um"})
        if scan.probe is not None:
            told.offers["probe", "path"] = str(path.absolute())
            told.notes.append(
                f"{path.name} has a probe of {len(scan.probe)} mode{'s' * (len(scan.probe) > 1)}: "
                "probe.source: file starts from it, with its path"
            )
        return None if scan.mask is None or scan.mask.all() else scan.mask


def _window(scan: RecordedScan) -> dict[Key, Any]:
    """Return how many pixels are used around which centre: all, or of large frames where the light is."""
    rows, columns = scan.frames.shape[1:]
    if rows == columns and rows <= WHOLE:
        return {("geometry", "n_pixels"): rows}
    chosen = np.unique(np.linspace(0, len(scan.frames) - 1, _FRAMES).astype(int))
    valid = np.ones((rows, columns), bool) if scan.mask is None else scan.mask
    mean = np.mean([scan.frames[number] for number in chosen], axis=0, dtype=np.float64) * valid
    row, column = (round(middle) for middle in beam_centre(mean, valid))
    room = 2 * min(row, column, rows - row, columns - column)
    distance = np.maximum(abs(np.arange(rows) - row)[:, None], abs(np.arange(columns) - column))
    light = np.bincount(distance.ravel(), mean.ravel()).cumsum()
    side = 2 * int(np.searchsorted(light, _LIGHT * light[-1]) + 1)
    n_pixels = min(-(-side // _STEP) * _STEP, room)
    return {("geometry", "n_pixels"): int(n_pixels), ("geometry", "centre"): [int(row), int(column)]}
