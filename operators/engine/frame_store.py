"""The frames an engine holds: amplitudes, positions and how well each is explained, by frame number."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from operators.arrays import (
    Array,
    ArrayModule,
    Mask,
    Patches,
    Patterns,
    Positions,
    Probe,
    array_module,
    to_numpy,
)
from operators.engine.flux import next_flux
from operators.optics.forward import forward_residual, noise_residual

_UNKNOWN = 0.0  # best residual of a frame not visited yet
_NOBODY = -1  # slot of a row that holds no frame
_LARGEST_AMPLITUDE = float(np.finfo(np.float16).max)  # 4 10^9 photons in one pixel


class Archive(NamedTuple):
    """Where the frames of a store can be read again.

    Attributes
    ----------
    read : callable
        Returns the patterns (frame, ky, kx) float32, photons, of these numbers (frame,) as they were put.
    n_bytes : int
        Of the amplitudes that may be in memory, at two bytes a pixel.
    """

    read: Callable[[np.ndarray], Patterns]
    n_bytes: int


def spread(numbers: Sequence[int] | np.ndarray, most: int) -> np.ndarray:
    """Return at most so many of these numbers, from the first to the last at equal distances, (n,) int64."""
    return np.asarray(numbers)[np.linspace(0, len(numbers) - 1, min(len(numbers), most)).astype(int)]


class FrameView:
    """Some frames' amplitudes: copied only when a part of them is asked for, as an update does.

    Parameters
    ----------
    amplitudes : (slot, ky, kx) float16, sqrt(photons)
    slots : (frame,) int64, on the host
    """

    def __init__(self, amplitudes: Array, slots: np.ndarray) -> None:
        self.amplitudes, self.slots = amplitudes, slots

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, part: int | slice) -> Array:
        """Return one frame as a view, or a copy of several."""
        slots = self.slots[part]
        return self.amplitudes[array_module(self.amplitudes).asarray(slots) if slots.ndim else slots]


def held(xp: ArrayModule, amplitudes: Array) -> tuple[Array, np.ndarray]:
    """Return amplitudes, (slot, ky, kx) float16, and the slots that are meant, (frame,) int64.

    `amplitudes` is a `FrameView`, which is not copied, or an array of any float dtype, sqrt(photons).
    """
    if isinstance(amplitudes, FrameView):
        return amplitudes.amplitudes, amplitudes.slots
    return xp.asarray(amplitudes, np.float16), np.arange(len(amplitudes))


class FrameStore:
    """Frames in slots that never move; capacity doubles, and slots not filled are zero.

    Amplitudes are kept in half precision. Its steps stay below a tenth of the photon noise up to 40 000
    photons in a pixel, and below all of it up to 4 million.

    Parameters
    ----------
    n_pixels : int
        Side of a pattern.
    mask : (ky, kx) bool, True where valid, corner-origin, or None
        Photons of other pixels do not count as measured power.
    xp : numpy or cupy
        Where the amplitudes live. All else stays on the host, where it decides what is read; the residuals
        of updates come there together when one of them is asked for, so that no update waits for its own.
    archive : Archive, optional
        Where frames can be read again: then no more than fit are in memory, the newest.
    """

    def __init__(
        self, n_pixels: int, mask: Mask | None, xp: ArrayModule, archive: Archive | None = None
    ) -> None:
        self._xp = xp
        self._mask = mask
        self._archive = archive
        self._most = sys.maxsize if archive is None else max(archive.n_bytes // (2 * n_pixels**2), 1)
        self._slot_of: dict[int, int] = {}
        self.amplitudes: Array = self._room(n_pixels)
        # Slot that is in a row of `amplitudes`: the row of a slot is its remainder by `_most`.
        self._slot_in = np.full(16, _NOBODY)
        self.numbers = np.zeros(16, np.int64)
        self.positions_px = np.zeros((16, 2))
        self.n_visits = np.zeros(16, np.int64)
        self.powers = np.zeros(16)
        self._flux = np.zeros(16)
        self._flux_is_fitted = False
        self._latest = np.zeros(16, np.float32)
        self._best = np.zeros(16, np.float32)
        self._noise = np.zeros(16, np.float32)
        self._is_new = np.zeros(16, bool)  # since `take_visits`
        self._not_read: list[tuple[np.ndarray, Array]] = []  # slots and their residuals, oldest first
        # Sums that run along: asked for with every state that is published.
        self._power = self._seen_power = self._left = 0.0  # of all frames, of those visited, of `_latest`

    def __len__(self) -> int:
        return len(self._slot_of)

    def put(self, numbers: Sequence[int], patterns: Patterns, positions_px: Positions) -> list[int]:
        """Hold the frames and return the slots of those not held before; a frame sent again replaces itself.

        Parameters
        ----------
        numbers : (frame,) int
        patterns : (frame, ky, kx) float32, photons, corner-origin, on the host
        positions_px : (frame, 2) float64, (y, x), absolute object pixels

        Raises
        ------
        ValueError
            If shapes disagree, or a pattern or position is not finite.
        """
        numbers = [int(number) for number in numbers]
        self._check(numbers, patterns, positions_px)
        n_before = len(self)
        slots = [self._slot_of.setdefault(number, len(self._slot_of)) for number in numbers]
        self._reserve(len(self))
        positive = np.maximum(patterns, 0)
        self._keep(np.array(slots[-self._most :]), self._amplitudes(positive[-self._most :]))
        self.numbers[slots], self.positions_px[slots], self._is_new[slots] = numbers, positions_px, True
        self._flux[n_before : len(self)] = 1
        valid = positive if self._mask is None else positive * self._mask
        self.powers[slots] = valid.sum(axis=(1, 2), dtype=np.float64)
        if len(self) == n_before + len(slots):
            self._power += float(self.powers[n_before : len(self)].sum())
        else:
            self._sum_up()
        self._noise[slots] = noise_residual(positive, self._mask)
        return list(range(n_before, len(self)))

    def select(self, slots: np.ndarray) -> FrameView:
        """Return the amplitudes of these slots, (frame,) int64, at a flux of 1 where that is fitted."""
        view = self._measured(slots)
        if not self._flux_is_fitted:
            return view
        # The amplitudes held stay as they were measured: rounded once, however often the flux is fitted.
        scale = self._xp.asarray((1 / np.sqrt(self._flux[slots])).astype(np.float32))
        amplitudes = view[:] * scale[:, None, None]
        amplitudes = self._xp.minimum(amplitudes, _LARGEST_AMPLITUDE).astype(self._xp.float16)
        return FrameView(amplitudes, np.arange(len(slots)))

    def fit_flux(self, slots: np.ndarray, modelled: np.ndarray) -> None:
        """Renew the flux of these slots by the photons, (frame,) float64, modelled at a flux of 1."""
        self._flux[slots] = next_flux(self._flux[slots], self.powers[slots], modelled)
        self._flux_is_fitted = True

    def flux_of(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the flux of these frames, all held, relative to their mean, (frame,) float64."""
        return self._flux[[self._slot_of[int(number)] for number in numbers]]

    def _measured(self, slots: np.ndarray) -> FrameView:
        """Return the amplitudes of these slots as measured, read again where they are not in memory."""
        if self._archive is None:
            return FrameView(self.amplitudes, slots)
        xp, rows = self._xp, slots % self._most
        is_here = self._slot_in[rows] == slots
        if is_here.all():
            return FrameView(self.amplitudes, rows)
        amplitudes = xp.empty((len(slots), *self.amplitudes.shape[1:]), xp.float16)
        amplitudes[xp.asarray(is_here)] = self.amplitudes[xp.asarray(rows[is_here])]
        missing = slots[~is_here]
        read = self._amplitudes(np.maximum(self._archive.read(self.numbers[missing]), 0))
        amplitudes[xp.asarray(~is_here)] = read
        is_free = self._slot_in[missing % self._most] == _NOBODY
        self._keep(missing[is_free], read[xp.asarray(is_free)])
        return FrameView(amplitudes, np.arange(len(slots)))

    def release(self) -> None:
        """Give up the memory of the frames where they can be read again; all else stays."""
        if self._archive is not None:
            self._slot_in[:] = _NOBODY
            self.amplitudes = self._room(self.amplitudes.shape[-1])

    def _room(self, n_pixels: int) -> Array:
        """Return room for amplitudes: on the host for all that may come, which takes memory as it is filled.

        To grow is to hold what there is twice for a moment.
        """
        if self._archive is not None and self._xp is np:
            with contextlib.suppress(MemoryError):  # a system that promises no more than it has
                return np.zeros((self._most, n_pixels, n_pixels), np.float16)
        return self._xp.zeros((16, n_pixels, n_pixels), self._xp.float16)

    def _amplitudes(self, patterns: Patterns) -> Array:
        amplitudes = np.minimum(np.sqrt(patterns, dtype=np.float32), _LARGEST_AMPLITUDE)
        return self._xp.asarray(amplitudes.astype(np.float16))

    def _keep(self, slots: np.ndarray, amplitudes: Array) -> None:
        """Hold these in memory, in place of older ones where there is no more room."""
        rows = slots % self._most
        n_rows, capacity = int(rows.max(initial=-1)) + 1, len(self._slot_in)
        while capacity < n_rows:
            capacity *= 2
        if capacity > len(self._slot_in):
            more = np.full(capacity - len(self._slot_in), _NOBODY)
            self._slot_in = np.concatenate([self._slot_in, more])
        if n_rows > len(self.amplitudes):
            self.amplitudes = _grown(self._xp, self.amplitudes, min(capacity, self._most))
        self.amplitudes[self._xp.asarray(rows)] = amplitudes
        self._slot_in[rows] = slots

    def record(self, slots: np.ndarray, errors: Array) -> None:
        """Note the residuals of frames just visited, (frame,) float32, photons; nothing is read back."""
        if self._flux_is_fitted:
            errors = errors * self._xp.asarray(self._flux[slots].astype(np.float32))
        self._not_read.append((slots, errors))
        self._seen_power += float(self.powers[slots[self.n_visits[slots] == 0]].sum())
        self.n_visits[slots] += 1
        self._is_new[slots] = True

    def restore(self, n_visits: np.ndarray, error: float) -> None:
        """Count all frames held as visited, (slot,) int, and as well explained as they are together.

        What was best for each is not known any more: the next visit says it.
        """
        self.n_visits[: len(self)], self._is_new[: len(self)] = n_visits, True
        self._not_read.clear()
        self._latest = (error * self.powers).astype(np.float32)
        self._sum_up()

    def take_visits(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames held or visited since the last call, and how often each has been visited.

        Returns
        -------
        numbers, n_visits : (frame,) int64
        """
        slots = np.flatnonzero(self._is_new)
        self._is_new[slots] = False
        return self.numbers[slots], self.n_visits[slots]

    def patterns(self, slots: np.ndarray) -> Patterns:
        """Return the patterns of these slots, (frame, ky, kx) float32, photons."""
        return self._xp.square(self.select(slots)[:].astype(self._xp.float32))

    def misfits(self, numbers: Sequence[int], probe: Probe, patches: Patches) -> np.ndarray:
        """Return sum (|F| - sqrt I)^2 of these frames, all held, and what of it is noise.

        Parameters
        ----------
        numbers : (frame,) int
        probe : (mode, y, x) complex64
        patches : (frame, y, x) complex64
            The object under each frame.

        Returns
        -------
        (2, frame) float64, photons
        """
        slots = np.array([self._slot_of[int(number)] for number in numbers], np.int64)
        left = to_numpy(forward_residual(self.patterns(slots), probe, patches, self._mask))
        return np.stack([left * self.powers[slots], self._noise[slots]])

    def positions_of(self, numbers: Sequence[int]) -> Positions:
        """Return a copy of the positions of these frames, all held, (frame, 2) absolute object pixels."""
        return self.positions_px[[self._slot_of[int(number)] for number in numbers]]

    def mean_power(self) -> float:
        """Return the mean photons of a frame, over valid pixels."""
        return self._power / len(self)

    def error(self) -> float:
        """Return the residual over the measured power of the frames visited, NaN if there are none."""
        self._read()
        return self._left / self._seen_power if self._seen_power else float("nan")

    def error_growth(self) -> float:
        """Return the latest residual over the best, over the frames visited twice here; 1 if there are none.

        Comparing each frame with itself, new frames, whose residuals start high, do not look like divergence.
        Nor do frames that had no neighbours yet and were explained better than their noise allows.
        """
        self._read()
        slots = np.flatnonzero(self.n_visits > 1)
        bests = self._best[slots]
        latest = float(self._latest[slots][bests != _UNKNOWN].sum())
        best = float(np.maximum(bests, self._noise[slots])[bests != _UNKNOWN].sum())
        return latest / best if best else 1.0

    def forget_growth(self) -> None:
        """Take the best residuals for the latest, as after going back to a good state."""
        self._read()
        # a frame never explained by anything finite is as far away as no model at all
        self._best = np.where(np.isfinite(self._best), self._best, self.powers.astype(np.float32))
        self._latest = np.where(self._best == _UNKNOWN, self._latest, self._best)
        self._sum_up()

    def _read(self) -> None:
        """Bring the residuals of all updates since the last time to the host, in one copy."""
        if not self._not_read:
            return
        slots = np.concatenate([slots for slots, _ in self._not_read])
        errors = to_numpy(self._xp.concatenate([errors for _, errors in self._not_read]))
        self._not_read.clear()
        visited = np.unique(slots)
        left = float(self._latest[visited].sum(dtype=np.float64))
        self._latest[slots] = errors  # of a frame visited twice, the last stays
        self._left += float(self._latest[visited].sum(dtype=np.float64)) - left
        if not np.isfinite(self._left):  # no difference would make it finite again
            self._sum_up()
        self._best[slots[self._best[slots] == _UNKNOWN]] = np.nan  # which any number is better than
        np.fmin.at(self._best, slots, errors)

    def _sum_up(self) -> None:
        self._power = float(self.powers.sum())
        self._seen_power = float(self.powers[self.n_visits > 0].sum())
        self._left = float(self._latest.sum(dtype=np.float64))

    def _check(self, numbers: list[int], patterns: Patterns, positions_px: Positions) -> None:
        expected = (len(numbers), *self.amplitudes.shape[1:])
        if patterns.shape != expected:
            raise ValueError(
                f"{len(numbers)} frame numbers need patterns of shape {expected}, got {patterns.shape}"
            )
        if positions_px.shape != (len(numbers), 2):
            raise ValueError(
                f"{len(numbers)} frame numbers need positions of shape {(len(numbers), 2)}, "
                f"got {positions_px.shape}"
            )
        is_finite = np.isfinite(patterns).all(axis=(1, 2)) & np.isfinite(positions_px).all(axis=1)
        if not is_finite.all():
            first = numbers[int(is_finite.argmin())]
            raise ValueError(
                f"pattern or position of frame {first} is not finite; mask dead pixels before refinement"
            )

    def _reserve(self, n_slots: int) -> None:
        capacity = len(self.powers)
        while capacity < n_slots:
            capacity *= 2
        if capacity == len(self.powers):
            return
        for name in (
            "numbers",
            "positions_px",
            "n_visits",
            "powers",
            "_flux",
            "_latest",
            "_best",
            "_noise",
            "_is_new",
        ):
            setattr(self, name, _grown(np, getattr(self, name), capacity))


def _grown(xp: ArrayModule, values: Array, capacity: int) -> Array:
    grown = xp.zeros((capacity, *values.shape[1:]), values.dtype)
    grown[: len(values)] = values
    return grown
