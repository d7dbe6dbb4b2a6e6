"""How close a live reconstruction came to the simulated truth.

Only the global phase is removed: with the positions of the truth there is no other freedom.
"""

import numpy as np
from numpy.typing import NDArray

from launch.beamline.simulation import SimulatedScan
from operators.arrays import Object, abs2
from operators.geometry import Bounds, window_corners
from operators.metrics.errors import NRMSE, nrmse
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import stitch
from operators.patches import add_patches
from stream.record.scan import Scan
from stream.record.snapshot import read_snapshot
from stream.stages.inputs import read_patches

WELL_LIT = 0.3  # of the peak illumination: where the object is judged


def accuracy(scan: Scan, truth: SimulatedScan) -> dict[str, float]:
    """Returns the errors of mosaic and refined object by name, and of a constant object beside them."""
    corners = window_corners(truth.geometry.to_pixels(truth.positions_m))
    constant = np.full_like(truth.object, truth.object[_well_lit(truth, corners)].mean())
    figures = _figures("constant", error_of(constant, Bounds(0, 0, *constant.shape), truth))
    mosaic = _mosaic(scan, truth, corners)
    if mosaic is not None and mosaic.bounds is not None:
        picture = mosaic.picture(mosaic.bounds)
        figures |= _figures("mosaic", error_of(picture.object, picture.bounds, truth))
    snapshot = read_snapshot(scan.folder)
    if snapshot is not None:
        figures |= _figures("refined", error_of(snapshot.object, snapshot.bounds, truth))
    return figures


def error_of(object_: Object, bounds: Bounds, truth: SimulatedScan) -> NRMSE:
    """Returns how far `object_`, which covers `bounds`, is from the truth where that is well lit."""
    lit = _well_lit(truth, window_corners(truth.geometry.to_pixels(truth.positions_m)))
    return nrmse(on_truth(object_, bounds, truth.object), truth.object, lit.astype(np.float32))


def on_truth(object_: Object, bounds: Bounds, truth: Object) -> Object:
    """Returns `object_` on the pixels of the truth, 1 where it does not reach."""
    whole = Bounds(0, 0, *truth.shape)
    canvas = np.ones(whole.union(bounds).shape, np.complex64)
    canvas[bounds.slices_in(whole.union(bounds))] = object_
    return canvas[whole.slices_in(whole.union(bounds))]


def _figures(name: str, errors: NRMSE) -> dict[str, float]:
    return {f"c_{name}": float(errors.c), f"nrmse_loose_{name}": float(errors.loose)}


def _well_lit(truth: SimulatedScan, corners: NDArray[np.int64]) -> NDArray[np.bool_]:
    illumination = np.zeros(truth.object.shape, np.float32)
    add_patches(illumination, abs2(truth.probe).sum(axis=0), corners)
    return illumination > WELL_LIT * illumination.max()


def _mosaic(scan: Scan, truth: SimulatedScan, corners: NDArray[np.int64]) -> Mosaic | None:
    numbers = scan.done("inference")
    numbers = numbers[numbers < len(corners)]
    if not numbers.size:
        return None
    patches, sigma = read_patches(scan, numbers)
    return stitch(patches, sigma, abs2(truth.probe).sum(axis=0), corners[numbers])
