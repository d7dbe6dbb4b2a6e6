"""The refinement engine: frames arrive in any order and number, and the object they support keeps improving.

`operators.engine.epie` knows the physics of one update; this file decides what to update: which frames, how
far, on how large a canvas, and what to do when it goes wrong. It has no clock: the refinement stage and the
offline reconstruction decide how many updates to run, and get the same result for the same calls.
"""

import math
from collections.abc import Sequence

import numpy as np

from operators.arrays import (
    Array,
    ArrayModule,
    Corners,
    Mask,
    Object,
    Patches,
    Patterns,
    Positions,
    Probe,
    abs2,
    to_numpy,
)
from operators.engine.backends import Update
from operators.engine.canvas import Canvas
from operators.engine.config import Changes, RefinerConfig, RefinerSnapshot, RefinerState
from operators.engine.epie import Batch, Steps, update
from operators.engine.flux import modelled_power
from operators.engine.frame_store import Archive, FrameStore, spread
from operators.engine.levelling import missing_phase
from operators.engine.position_steps import position_steps
from operators.engine.recovery import Recovery
from operators.engine.visits import VisitOrder
from operators.geometry import Bounds, window_corners
from operators.optics.probe import orthogonalise_modes, phase_ramp, probe_tilt
from operators.patches import extract_patches

_LEVEL_EVERY = 4  # epochs
_ENOUGH_TO_LEVEL = 512  # frames


class Refiner:
    """Refines object and probe from the frames appended so far, in steps of whole batches.

    Parameters
    ----------
    config : RefinerConfig
    probe : (mode, y, x) complex64
        Start. Its power is kept: it fixes the scale between probe and object.
    mask : (ky, kx) bool, True where valid, corner-origin, optional
    xp : numpy or cupy
    run_update : callable
        The reference by default; `operators.engine.backends.get_backend` has the one that is fastest on `xp`.
    archive : Archive, optional
        Of the frames that do not fit into memory; without it all are held.
    """

    def __init__(
        self,
        config: RefinerConfig,
        probe: Probe,
        *,
        mask: Mask | None = None,
        xp: ArrayModule = np,
        run_update: Update = update,
        archive: Archive | None = None,
    ) -> None:
        self._config = config
        self._xp, self._run_update = xp, run_update
        self._n_pixels, self._recovery, self._is_all_new = probe.shape[-1], Recovery(), True
        self.set_probe(probe)
        valid = None if mask is None or mask.all() else to_numpy(mask)
        self._mask = None if valid is None else xp.ascontiguousarray(valid, bool)
        self._frames = FrameStore(self._n_pixels, valid, xp, archive)
        self._order = VisitOrder(config.seed)
        self._canvas: Canvas | None = None
        self._scanned: Bounds | None = None
        self._n_since_check = 0
        self.n_updates = 0

    @property
    def n_frames(self) -> int:
        """Frames held."""
        return len(self._frames)

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the frames held, (frame,) int64, in the order in which they came."""
        return self._frames.numbers[: self.n_frames]

    @property
    def epoch(self) -> float:
        """Updates per frame held; 0 before the first frame."""
        return self.n_updates / self.n_frames if self.n_frames else 0.0

    def last_epoch(self, epochs: float) -> float:
        """Return the epoch at which a refinement of so many is done: later where frames would be left out.

        An epoch is an update per frame, and of those at least half go to frames that have had none.
        """
        return max(epochs, self.epoch + 2 * self._order.n_unseen / max(self.n_frames, 1))

    @property
    def probe(self) -> Probe:
        """The probe as it is now, (mode, y, x) complex64, photons."""
        return self._probe

    @property
    def error(self) -> float:
        """Amplitude error over the frames visited, each as of its last visit; read back from the device."""
        return self._frames.error()

    @property
    def error_history(self) -> Sequence[float]:
        """The amplitude error at the end of every epoch; not a copy, so not to be changed."""
        return self._recovery.error_history

    @property
    def n_divergences(self) -> int:
        """Times it went back to its last good state and halved its steps."""
        return self._recovery.n_divergences

    @property
    def mean_photons(self) -> float:
        """Mean photons of the frames held, over valid pixels."""
        return self._frames.mean_power()

    def take_changes(self) -> Changes:
        """Return what has changed since the last call."""
        is_all, self._is_all_new = self._is_all_new, False
        return Changes(*self._frames.take_visits(), is_all)

    def release_frames(self) -> None:
        """Give up the memory of the frames, if they can be read again."""
        self._frames.release()

    def positions_px(self, numbers: Sequence[int]) -> Positions:
        """Return the positions of frames held, (frame, 2) absolute object pixels, as refined so far."""
        return self._frames.positions_of(numbers)

    def flux(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the flux of frames held relative to their mean, (frame,) float64; 1 unless it is fitted."""
        return self._frames.flux_of(numbers)

    def windows(self, corners: Corners) -> Patches:
        """Return the object as it is now under each window, (frame, y, x); `corners` are absolute pixels."""
        canvas = self._cover(Bounds.of_windows(corners, self._n_pixels))
        return extract_patches(canvas.object, canvas.local(corners), self._n_pixels)

    def misfits(self, numbers: Sequence[int], patches: Patches | None = None) -> np.ndarray:
        """Return what patches, by default of the object as it is, and noise leave of frames: (2, frame)."""
        if patches is None:
            patches = self.windows(window_corners(self.positions_px(numbers)))
        return self._frames.misfits(numbers, self._probe, self._xp.asarray(patches))

    def set_probe(self, probe: Probe) -> None:
        """Go on with another probe of the same window, and keep its power from now on.

        Raises ValueError unless it is (mode, y, x), of that window and of finite power above 0.
        """
        expected = (self._n_pixels, self._n_pixels)
        if probe.ndim != 3 or probe.shape[1:] != expected:
            raise ValueError(
                f"expected a probe of shape (mode, {self._n_pixels}, {self._n_pixels}), got {probe.shape}"
            )
        self._probe = self._xp.array(probe, self._xp.complex64, order="C")
        self._recovery.good.probe = self._probe.copy()
        self._tilt = probe_tilt(self._probe)
        self._is_all_new = True
        self._power = float(abs2(self._probe).sum())
        if not 0 < self._power < math.inf:
            raise ValueError(f"expected a probe of finite power above zero, got a power of {self._power}")

    def append(self, numbers: Sequence[int], patterns: Patterns, positions_px: Positions) -> None:
        """Hold more frames, and grow the object to cover them; a frame sent again replaces itself.

        Parameters
        ----------
        numbers : (frame,) int
            Frame numbers, any order.
        patterns : (frame, ky, kx) float32, photons, corner-origin, on the host
        positions_px : (frame, 2) float, absolute object pixels
            Top-left of each probe window, (y, x); rounded to whole pixels unless `subpixel` is set.

        Raises
        ------
        ValueError
            If shapes disagree, or a pattern or position is not finite. Nothing is held then.
        """
        if not len(numbers):
            return
        self._order.add(self._frames.put(numbers, patterns, np.asarray(positions_px)))
        windows = Bounds.of_windows(window_corners(np.asarray(positions_px)), self._n_pixels)
        self._scanned = windows if self._scanned is None else self._scanned.union(windows)
        self._cover(windows)

    def seed_object(self, patches: Patches, weights: Array, corners: Corners) -> None:
        """Write a first guess of the object, only where it is given and no frame has been refined yet.

        The guess is turned by one global phase to continue the refined object where they overlap.

        Parameters
        ----------
        patches : (frame, y, x) complex64
        weights : (frame, y, x) or (y, x) float32
            How far each pixel is to be believed, say |P|^2; pixels below a tenth of the largest are not
            written.
        corners : (frame, 2) int64, absolute object pixels
        """
        if not len(corners):
            return
        canvas = self._cover(Bounds.of_windows(corners, self._n_pixels))
        xp = self._xp
        peak = abs2(self._probe).sum(axis=0).max()
        canvas.seed(xp.asarray(patches), xp.asarray(weights, xp.float32), corners, peak)

    def step(self, n_batches: int = 1, *, fraction: float = 1.0, level_every: int | None = None) -> int:
        """Run updates of `n_batches` batches and return how many frames were visited, 0 if none are held.

        Parameters
        ----------
        n_batches : int
        fraction : float
            Of the configured steps to take, in (0, 1]; see `closing_fraction`.
        level_every : int, optional
            Epochs between two looks for slow phases, of the first ones the first, second and fourth; 0 for
            none. By default they are looked for while steps are less than full.
        """
        if level_every is None:
            level_every = _LEVEL_EVERY if fraction < 1 else 0
        n_before = self.n_updates
        for _ in range(n_batches):
            slots = self._order.next_batch(self._config.batch_size)
            if self._canvas is None or not len(slots):
                break
            self._update(self._canvas, slots, fraction * self._recovery.step_factor)
            if self._n_since_check >= self.n_frames:
                self._end_epoch(self._canvas, level_every)
        return self.n_updates - n_before

    def state(self) -> RefinerState:
        """Return what is known now beside the object, on the host.

        No pattern tells whether a phase ramp is the probe's or the object's, and which of the two has it
        depends on the order in which frames came. Here the probe has the one it started with.

        Raises
        ------
        ValueError
            If no frame has been appended.
        """
        if self._scanned is None:
            raise ValueError("no frame has been appended: there is nothing to take a snapshot of")
        return RefinerState(
            bounds=self._scanned,
            probe=to_numpy(self._probe * phase_ramp(self._probe.shape[1:], -self._gained)),
            n_frames=self.n_frames,
            n_updates=self.n_updates,
            error=self.error,
            error_history=tuple(self.error_history),
            n_divergences=self.n_divergences,
        )

    def part(self, bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
        """Return object and illumination on `bounds`, absolute pixels, on the host: they go with `state`."""
        canvas = self._cover(bounds) if self._canvas is None else self._canvas
        return canvas.part(bounds, self._gained, self._n_pixels / 2)

    def snapshot(self) -> RefinerSnapshot:
        """Return a copy of what is known now, on the host; raises as `state`."""
        state = self.state()
        return state.with_object(*self.part(state.bounds))

    def adopt(self, object_: Object, bounds: Bounds, probe: Probe) -> None:
        """Go on with an object and a probe that others had a part in; divergence leads back to no older ones.

        Parameters
        ----------
        object_ : (row, col) complex64
        bounds : Bounds
            Absolute pixels that `object_` covers; the object outside is left alone.
        probe : (mode, y, x) complex64
            Its power is kept from now on.
        """
        self.set_probe(probe)
        canvas = self._cover(bounds)
        canvas.object[bounds.slices_in(canvas.bounds)] = self._xp.asarray(object_)
        self._recovery.good.keep(canvas, self._probe, self.epoch)

    def restore(self, snapshot: RefinerSnapshot, n_visits: np.ndarray | None = None) -> None:
        """Go on from a snapshot; append the frames it was made from first, they then count as visited.

        `n_visits`, (frame,) int, says how often each, in the order appended; the snapshot's epochs otherwise.
        """
        self.adopt(snapshot.object, snapshot.bounds, snapshot.probe)
        canvas = self._cover(snapshot.bounds)
        inside = snapshot.bounds.slices_in(canvas.bounds)
        canvas.illumination[inside] = self._xp.asarray(snapshot.illumination)
        self._scanned = snapshot.bounds if self._scanned is None else self._scanned.union(snapshot.bounds)
        visits = np.full(self.n_frames, int(snapshot.epoch)) if n_visits is None else n_visits
        self._frames.restore(np.maximum(visits, 1), snapshot.error)
        self._order.mark_seen(self._frames.n_visits)
        self.n_updates = snapshot.n_updates
        self._recovery.good.epoch = self.epoch
        self._recovery.error_history = list(snapshot.error_history)
        self._recovery.n_divergences = snapshot.n_divergences

    @property
    def _gained(self) -> Array:
        """The phase ramp that the probe has got since the start, (2,), rad/pixel."""
        return probe_tilt(self._probe) - self._tilt

    def _cover(self, windows: Bounds) -> Canvas:
        if self._canvas is None:
            self._canvas = Canvas(windows.padded(self._n_pixels), self._xp)
        elif not self._canvas.bounds.contains(windows):
            # the margin keeps a scan that advances by a few pixels from copying the canvas at every frame
            self._canvas.grow(self._canvas.bounds.union(windows.padded(self._n_pixels)))
        return self._canvas

    def _update(self, canvas: Canvas, slots: np.ndarray, fraction: float) -> None:
        config, frames = self._config, self._frames
        positions, n_visits = frames.positions_px[slots], frames.n_visits[slots]
        visits = n_visits.tolist()  # of so few numbers Python knows most in a fraction of NumPy's time
        corners = window_corners(positions)
        if 0 in visits:
            canvas.illuminate(self._probe, corners[n_visits == 0])
        probe_start = config.probe_start_of(self.n_frames)
        steps = Steps(
            object_step=config.object_step * fraction,
            probe_step=config.probe_step * fraction if max(visits) >= probe_start else 0,
            alpha=config.alpha_after(sum(visits) / len(visits)),
            is_poisson=config.noise == "poisson",
            probe_photons=self._power,
        )
        batch = Batch(
            frames.select(slots),
            canvas.local(corners),
            (n_visits >= probe_start).astype(np.float32),
            (positions - corners).astype(np.float32) if config.shifts_probe else None,
            self._xp.zeros((len(slots), 5), self._xp.float32) if config.refines_positions else None,
        )
        errors = self._run_update(canvas.object, self._probe, batch, steps, canvas.sums, mask=self._mask)
        if batch.gradients is not None:
            self._move_positions(slots, batch.gradients)
        frames.record(slots, errors)
        self.n_updates += len(slots)
        self._n_since_check += len(slots)

    def _move_positions(self, slots: np.ndarray, gradients: Array) -> None:
        """Move frames that the object explains so far along their steps, and make room for where they go."""
        frames = self._frames
        is_settled = frames.n_visits[slots] >= self._config.positions_start
        slots, steps = slots[is_settled], position_steps(to_numpy(gradients))[is_settled]
        if not np.isfinite(steps).all() or not len(slots):
            return  # diverged: the end of the epoch deals with it
        frames.positions_px[slots] += steps
        windows = Bounds.of_windows(window_corners(frames.positions_px[slots]), self._n_pixels)
        self._scanned = windows if self._scanned is None else self._scanned.union(windows)
        self._cover(windows)

    def _end_epoch(self, canvas: Canvas, level_every: int) -> None:
        self._n_since_check = 0
        if self._recovery.keeps(self._frames, canvas, self._probe, self.epoch):
            self._tidy(canvas, level_every)
        else:
            self._is_all_new = True

    def _tidy(self, canvas: Canvas, level_every: int) -> None:
        """Renew flux, level the object, orthogonalise modes, renew the illumination: each now and then."""
        n_epochs = len(self.error_history)
        if self._config.fits_flux:
            seen = np.flatnonzero(self._frames.n_visits > 1)
            corners = canvas.local(window_corners(self._frames.positions_px[seen]))
            self._frames.fit_flux(seen, modelled_power(canvas.object, self._probe, corners, self._mask))
        is_power_of_two = n_epochs & (n_epochs - 1) == 0
        # Frames that are moved while the object is levelled follow it away from where they were.
        may_level = self._config.levels and not self._config.refines_positions
        if may_level and level_every and (is_power_of_two or n_epochs % level_every == 0):
            self._level(canvas)
        if not self._config.probe_step:
            return
        self._probe[...] = orthogonalise_modes(self._probe)
        if is_power_of_two:  # it was noted with earlier probes
            seen = np.flatnonzero(self._frames.n_visits)
            self._is_all_new = True
            canvas.illumination[...] = 0
            canvas.illuminate(self._probe, window_corners(self._frames.positions_px[seen]))

    def _level(self, canvas: Canvas) -> None:
        """Give the object the slow variations of phase that it lacks by its patterns."""
        frames = self._frames
        some = spread(np.flatnonzero(frames.n_visits), _ENOUGH_TO_LEVEL)
        corners = canvas.local(window_corners(frames.positions_px[some]))
        phase = missing_phase(frames.patterns(some), self._probe, canvas.object, corners, self._mask)
        if phase is not None:
            self._is_all_new = True
            canvas.turn(phase)
