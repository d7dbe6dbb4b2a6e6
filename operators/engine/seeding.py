"""Decide what refinement starts from: the network's patches where they help, transparent ground elsewhere.

A network that was trained on another material is confident and wrong, and a wrong start is worse than a
flat one. The same holds for the object of an earlier scan, which may have been of another place.
"""

import numpy as np

from operators.arrays import Array, Corners, Mask, Patches, Patterns, Probe, abs2, array_module, to_numpy
from operators.engine.config import RefinerSnapshot
from operators.engine.refiner import Refiner
from operators.geometry import Bounds, lie_far_apart
from operators.mosaic.mosaic import KNOWN_FRACTION, Mosaic
from operators.optics.forward import forward_residual, noise_residual, valid_photons
from operators.patches import extract_patches

EXPLAINED = 0.25
"""Share of what a transparent object leaves unexplained that the mosaic may leave: 0.04 to 0.2 was measured
on samples like those of the training, 0.05 to 0.8 on other materials."""

NEARLY_NONE = 0.1
"""Share of frames that a transparent object explains better; at most 0.01 on samples like the training's."""


class Seeding:
    """The gate of one scan: what new ground starts from, and how far the network is to be believed at all.

    A frame is started from its window of the mosaic if that explains it better than the object as it is and
    than a transparent one. `seeds` are windows of the mosaic, so what a frame is asked to explain also comes
    from its neighbours; a patch that merely fits its own pattern, which one wrong by 90 % can do, does not
    pass on that alone. Other frames start transparent in the phase that the mosaic has there: an empty place
    between two structures ties their phases together, and a step of phase around either would stay.

    Over all frames together, the better of the two must leave at most a quarter of what a transparent object
    leaves unexplained. Otherwise the sample is not what the network was trained on, and nothing is started
    from it.

    Parameters
    ----------
    mask : (ky, kx) bool, True where valid

    Attributes
    ----------
    n_refused : int
        Frames that were not started from the network.
    """

    def __init__(self, mask: Mask | None = None) -> None:
        self._mask = mask
        self._left = self._left_by_blank = 0.0
        self._n_frames = self._n_flat = 0
        self.n_refused = 0

    @property
    def trusts_network(self) -> bool:
        """Whether it explains the frames seen so far; without any it does."""
        return self._left <= EXPLAINED * self._left_by_blank

    @property
    def starts_near(self) -> bool:
        """Whether nearly all ground was started from the network."""
        return self.trusts_network and self._n_flat <= NEARLY_NONE * self._n_frames

    def seed(self, engine: Refiner, mosaic: Mosaic, patterns: Patterns, corners: Corners) -> None:
        """Start the ground of more frames from the mosaic, which has their patches, where that helps.

        Parameters
        ----------
        engine : Refiner
            Holds the frames.
        mosaic : Mosaic
        patterns : (frame, ky, kx) float32, photons
        corners : (frame, 2) int64, absolute object pixels
        """
        # Windows of the mosaic agree in phase where patches do not.
        seeds, current = mosaic.windows(corners), to_numpy(engine.windows(corners))
        starts = self.starts(patterns, to_numpy(engine.probe), seeds, mosaic.weights, current)
        if starts is not None:
            engine.seed_object(starts, mosaic.weights, corners)

    def stand_for(self, factor: float) -> None:
        """Take the frames seen so far for a sample of so many times as many."""
        self._left, self._left_by_blank = factor * self._left, factor * self._left_by_blank
        self._n_frames, self._n_flat = round(factor * self._n_frames), round(factor * self._n_flat)
        self.n_refused = round(factor * self.n_refused)

    def starts(
        self, patterns: Patterns, probe: Probe, seeds: Patches, weights: Array, current: Patches
    ) -> Patches | None:
        """Return what the ground of more frames starts from, (frame, y, x) complex64, None for as it is.

        Parameters
        ----------
        patterns : (frame, ky, kx) float32, photons
        probe : (mode, y, x) complex64
        seeds : (frame, y, x) complex64
            Windows of the mosaic.
        weights : (y, x) float32
            How far each pixel of a seed is to be believed.
        current : (frame, y, x) complex64
            Windows of the object as it is.
        """
        xp = array_module(patterns)
        phases = (seeds * weights).sum(axis=(1, 2))
        phases = phases / xp.maximum(abs(phases), np.float32(1e-20))
        blank = xp.broadcast_to(phases[:, None, None].astype(seeds.dtype), seeds.shape)
        left = [forward_residual(patterns, probe, patches, self._mask) for patches in (seeds, blank, current)]
        noise = noise_residual(patterns, self._mask) / valid_photons(patterns, self._mask)
        self._left += float((xp.minimum(left[0], left[1]) - noise).sum())
        self._left_by_blank += float((left[1] - noise).sum())
        self._n_frames += len(patterns)
        self._n_flat += int((left[1] <= left[0]).sum())
        if not self.trusts_network:
            self.n_refused += len(patterns)
            return None
        helps = left[0] < xp.minimum(left[1], left[2])
        self.n_refused += int((~helps).sum())
        return xp.where(helps[:, None, None], seeds, blank)


class EarlierObject:
    """The object of an earlier scan, where a scan of the same place starts from it.

    A frame is started from its window of the earlier object if that explains it better than the object as it
    is, the network's seed included, and than a transparent one. Over all frames on its ground the better of
    the earlier and a transparent object must leave at most a quarter of what a transparent one leaves
    unexplained, or nothing is started from it: it was of another sample, or the sample has moved.

    Parameters
    ----------
    snapshot : RefinerSnapshot
        Of the earlier scan, its object pixels those of this scan.
    mask : (ky, kx) bool, True where valid

    Attributes
    ----------
    n_used : int
        Frames that were started from it.
    """

    def __init__(self, snapshot: RefinerSnapshot, mask: Mask | None = None) -> None:
        self.snapshot, self._mask = snapshot, mask
        self._known = snapshot.illumination > KNOWN_FRACTION * abs2(snapshot.probe).sum(axis=0).max()
        self._left = self._left_by_blank = 0.0
        self._turn: np.complex64 | None = None  # into the phase of this scan
        self.n_used = 0

    def seed(self, engine: Refiner, patterns: Patterns, corners: Corners) -> None:
        """Start the ground of more frames from it where that helps; where frames were refined it stays.

        Parameters
        ----------
        engine : Refiner
            Holds the frames.
        patterns : (frame, ky, kx) float32, photons
        corners : (frame, 2) int64, absolute object pixels
        """
        probe = to_numpy(engine.probe)
        weights = abs2(probe).sum(axis=0)
        windows, is_known = self._windows(corners, len(weights))
        is_on = (is_known * weights).sum(axis=(1, 2)) > weights.sum() / 2
        if not is_on.any():
            return
        patterns, corners, windows, is_known = (a[is_on] for a in (patterns, corners, windows, is_known))
        current = to_numpy(engine.windows(corners))
        if self._turn is None:  # once: within itself it is of one phase
            agreement = (windows.conj() * current * (is_known * weights)).sum()
            self._turn = np.complex64(agreement / max(abs(agreement), 1e-20))
        windows = np.where(is_known, windows * self._turn, current)
        starts = (windows, np.ones_like(windows), current)
        left = [forward_residual(patterns, probe, patches, self._mask) for patches in starts]
        noise = noise_residual(patterns, self._mask) / valid_photons(patterns, self._mask)
        self._left += float((np.minimum(left[0], left[1]) - noise).sum())
        self._left_by_blank += float((left[1] - noise).sum())
        helps = left[0] < np.minimum(left[1], left[2])
        if self._left <= EXPLAINED * self._left_by_blank and helps.any():
            engine.seed_object(windows[helps], weights, corners[helps])
            self.n_used += int(helps.sum())

    def stand_for(self, factor: float) -> None:
        """Take the frames seen so far for a sample of so many times as many."""
        self._left, self._left_by_blank = factor * self._left, factor * self._left_by_blank
        self.n_used = round(factor * self.n_used)

    def _windows(self, corners: Corners, n_pixels: int) -> tuple[Patches, Array]:
        """Return (frame, y, x) complex64 and bool: the object under each window, and where it is known."""
        if lie_far_apart(corners, n_pixels):
            parts = [self._windows(corner[None], n_pixels) for corner in corners]
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        own, bounds = self.snapshot.bounds, Bounds.of_windows(corners, n_pixels)
        object_, is_known = np.ones(bounds.shape, np.complex64), np.zeros(bounds.shape, bool)
        if (both := bounds.intersection(own)) is not None:
            there, here = both.slices_in(own), both.slices_in(bounds)
            object_[here], is_known[here] = self.snapshot.object[there], self._known[there]
        local = corners - bounds.origin
        return extract_patches(object_, local, n_pixels), extract_patches(is_known, local, n_pixels)
