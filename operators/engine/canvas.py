"""The object on the ground it covers so far, which grows with the scan."""

import numpy as np

from operators.arrays import Array, ArrayModule, Corners, Object, Patches, Probe, abs2, to_numpy
from operators.engine.epie import Accumulators
from operators.geometry import Bounds, lie_far_apart
from operators.optics.probe import phase_ramp
from operators.patches import add_patches

_BELIEVED = 0.1  # of the largest weight: outside, a guess is mostly extrapolation
_REFINED = 0.1  # of the probe's peak intensity: light enough for refinement to know better than a guess
_TINY = 1e-20
_ROWS_AT_ONCE = 256


class Canvas:
    """Object, illumination and update sums on the pixels of `bounds`, in place until it has to `grow`.

    Parameters
    ----------
    bounds : Bounds
        Absolute pixels covered. New ground is transparent: an object of 1.
    xp : numpy or cupy
    """

    def __init__(self, bounds: Bounds, xp: ArrayModule) -> None:
        self._xp = xp
        self.bounds = bounds
        self.object: Object = xp.ones(bounds.shape, xp.complex64)
        self.illumination: Array = xp.zeros(bounds.shape, xp.float32)
        self.sums = Accumulators(bounds.shape, xp)

    def grow(self, bounds: Bounds) -> None:
        """Make room for larger bounds; the content stays where it is in absolute pixels.

        Without room for them all stays as it is. The arrays are copied one after the other, and the sums,
        zero between updates, not at all.
        """
        xp, inside = self._xp, self.bounds.slices_in(bounds)
        self.sums = Accumulators(self.bounds.shape, xp)
        object_, illumination = xp.ones(bounds.shape, xp.complex64), xp.zeros(bounds.shape, xp.float32)
        object_[inside] = self.object
        self.object = object_
        illumination[inside] = self.illumination
        self.illumination = illumination
        self.sums, self.bounds = Accumulators(bounds.shape, xp), bounds

    def part(self, bounds: Bounds, slope: Array, first_px: float) -> tuple[np.ndarray, np.ndarray]:
        """Return object and illumination on `bounds`, on the host: new ground where there is no canvas.

        Parameters
        ----------
        bounds : Bounds
            Absolute pixels.
        slope : (2,) real, rad/pixel
            Of a phase ramp that lit ground is given.
        first_px : float
            Absolute row and column at which that is zero.
        """
        object_, illumination = np.ones(bounds.shape, np.complex64), np.zeros(bounds.shape, np.float32)
        if (shared := bounds.intersection(self.bounds)) is not None:
            here, there = shared.slices_in(bounds), shared.slices_in(self.bounds)
            values, lit = self.object[there], self.illumination[there]
            ramp = phase_ramp(shared.shape, slope, (shared.top - first_px, shared.left - first_px))
            object_[here] = to_numpy(self._xp.where(lit > 0, values * ramp, values))
            illumination[here] = to_numpy(lit)
        return object_, illumination

    def local(self, corners: Corners) -> Corners:
        """Return absolute corners as corners in these arrays."""
        return corners - self.bounds.origin

    def illuminate(self, probe: Probe, corners: Corners) -> None:
        """Note that frames at these absolute corners take part in refinement."""
        if not len(corners):
            return
        add_patches(self.illumination, abs2(probe).sum(axis=0), self.local(corners))

    def turn(self, phase: Array) -> None:
        """Add `phase`, (row, col) float32, rad, to the ground that frames have lit."""
        for start in range(0, len(phase), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            turned = self.object[rows] * self._xp.exp(1j * phase[rows])
            self.object[rows] = self._xp.where(self.illumination[rows] > 0, turned, self.object[rows])

    def seed(self, patches: Patches, weights: Array, corners: Corners, peak: Array) -> None:
        """Write the weighted mean of `patches` where it is given and no frame has been refined.

        Parameters
        ----------
        patches : (frame, y, x) complex64
        weights : (frame, y, x) or (y, x) float32
        corners : (frame, 2) int64, absolute
        peak : float, photons
            Of the probe's intensity; ground lit by less than a tenth of it is not refined.
        """
        xp, region, n = self._xp, Bounds.of_windows(corners, patches.shape[-1]), patches.shape[-1]
        sums, total = xp.zeros(region.shape, xp.complex64), xp.zeros(region.shape, xp.float32)
        add_patches(sums, patches * weights, corners - region.origin)
        add_patches(total, weights, corners - region.origin)
        least, blocks = _BELIEVED * weights.max(), self._blocks(region, corners, n)
        overlap = xp.zeros((), xp.complex64)
        for block in blocks:
            here, there = block.slices_in(region), block.slices_in(self.bounds)
            is_given = total[here] > least
            sums[here] /= xp.where(is_given, total[here], 1)
            is_common = is_given & (self.illumination[there] > _REFINED * peak)
            overlap += (sums[here].conj() * self.object[there] * is_common).sum()
        size = abs(overlap)
        turn = xp.where(size > 0, overlap / xp.maximum(size, _TINY), 1)
        for block in blocks:
            here, there = block.slices_in(region), block.slices_in(self.bounds)
            is_new = (total[here] > least) & ~(self.illumination[there] > _REFINED * peak)
            self.object[there] = xp.where(is_new, sums[here] * turn, self.object[there])

    def _blocks(self, region: Bounds, corners: Corners, n_pixels: int) -> list[Bounds]:
        """Return what of a region to look at: all of it, or the squares under windows that lie far apart."""
        if self._xp is not np or not lie_far_apart(corners, n_pixels):
            return [region]
        offsets = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
        cells = np.unique(((corners // n_pixels)[:, None] + offsets).reshape(-1, 2), axis=0)
        squares = [Bounds(y, x, y + n_pixels, x + n_pixels) for y, x in (n_pixels * cells).tolist()]
        return [block for square in squares if (block := square.intersection(region)) is not None]
