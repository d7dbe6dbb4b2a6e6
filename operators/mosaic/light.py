"""The part of a window that its probe lights."""

import numpy as np

from operators.arrays import Array, Patches
from operators.geometry import Bounds
from operators.patches import UNIFORM_PHASE_SIGMA


def lit_part(illumination: Array, least: float) -> Bounds:
    """Return the smallest box of a window outside which there is less than `least` of the peak of its light.

    Parameters
    ----------
    illumination : (y, x) float32, photons
        |P|^2 summed over modes.
    least : float, 0 to 1
    """
    lit = illumination >= least * illumination.max()
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    return Bounds(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def part_of_windows(patches: Patches, sigma: Array, n_pixels: int, part: Bounds) -> tuple[Patches, Array]:
    """Return patches and sigma on a part of their windows, views where they have all of it.

    Parameters
    ----------
    patches : (frame, y, x) complex64
        Of whole windows or of their middle, around which they are as `operators.patches.widened` has it.
    sigma : (frame, y, x) real, rad
    n_pixels : int
        Side of a window.
    part : Bounds
        Pixels of a window.
    """
    here = middle_of(n_pixels, patches.shape[-1])
    if here.contains(part):
        window = (slice(None), *part.slices_in(here))
        return patches[window], sigma[window]
    found, shared = [], part.intersection(here)
    for of, around in ((patches, 1), (sigma, UNIFORM_PHASE_SIGMA)):
        wide = np.full((len(of), *part.shape), around, of.dtype)
        if shared is not None:
            wide[:, *shared.slices_in(part)] = of[:, *shared.slices_in(here)]
        found.append(wide)
    return found[0], found[1]


def middle_of(n_pixels: int, n_middle: int) -> Bounds:
    """Return the middle of a window, of side `n_middle`, in its pixels."""
    first = (n_pixels - n_middle) // 2
    return Bounds(first, first, first + n_middle, first + n_middle)
