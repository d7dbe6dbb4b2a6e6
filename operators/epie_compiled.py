"""The update of `operators.epie` in compiled loops: the same numbers to rounding, several times as fast.

Separate so that the reference stays readable: this file says in what order memory is touched, not what an
update is. Workers first take frames, which are independent until their corrections meet, then rows of the
object: one row of all corrections is summed and applied while it is in the nearest cache, so that no sums as
large as the object are ever written.
Used by `operators.refiner` where numba is installed; FFTW, where pyfftw is, does the transforms.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.fft

from operators.arrays import Array, Mask, Object, Probe, Waves
from operators.epie import Accumulators, Batch, Steps

# Pixels behind each row of waves: in rows a power of two apart, a column would share few lines of the cache.
_PADDING = 8

EachWorker = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]


def can_compile() -> bool:
    """Return whether numba is installed; nothing is imported."""
    return importlib.util.find_spec("numba") is not None


def _has_fftw() -> bool:
    return importlib.util.find_spec("pyfftw") is not None


class CompiledUpdate:
    """Callable like `operators.epie.update`, for NumPy arrays, with buffers kept from call to call.

    Amplitudes are read in half precision, as the frame store has them.

    Parameters
    ----------
    n_workers : int
        Shares that a batch is cut into. The probe depends on it by rounding.
    each_worker : callable
        Like `map`, which is the default: calls a function for each share. A thread pool's `map` works on
        them side by side.
    """

    def __init__(self, *, n_workers: int = 1, each_worker: EachWorker = map) -> None:
        self._n_workers, self._each_worker = n_workers, each_worker
        self._buffers: _Buffers | None = None

    def __call__(
        self,
        object_: Object,
        probe: Probe,
        batch: Batch,
        steps: Steps,
        sums: Accumulators,
        *,
        mask: Mask | None = None,
    ) -> Array:
        """Move `object_` and `probe` in place and return the errors; see `operators.epie.update`.

        `sums` stay untouched.
        """
        run = _Run(object_, probe, batch, steps, mask, self._buffers_for(len(batch.corners), probe))
        stages = [run.correct_waves, run.move_rows]
        if batch.shifts is not None and steps.probe_step:
            stages.append(run.shift_back)
        for stage in stages:
            for _ in self._each_worker(stage, range(self._n_workers)):
                pass
        if steps.probe_step:
            run.move_probe()
        return run.errors

    def _buffers_for(self, n_frames: int, probe: Probe) -> "_Buffers":
        if self._buffers is None or not self._buffers.fit(n_frames, probe):
            self._buffers = _Buffers(n_frames, probe.shape, self._n_workers)
        return self._buffers


class _Buffers:
    """Exit waves of a batch with their transforms, and what each worker sums up."""

    def __init__(self, n_frames: int, probe_shape: tuple[int, int, int], n_workers: int) -> None:
        n_modes, n_rows, n_columns = probe_shape
        padded = _aligned((n_frames, n_modes, n_rows, n_columns + _PADDING))
        self.pairs = padded.view(np.float32)
        self.frames = [_FrameWaves(waves, n_columns) for waves in padded]
        self.probe_sums = np.empty((n_workers, *probe_shape), np.complex64)
        self.transmissions = np.empty((n_workers, n_rows, n_columns), np.float32)
        self.everywhere = np.ones((n_rows, n_columns), bool)
        self._probe_shape = probe_shape

    def fit(self, n_frames: int, probe: Probe) -> bool:
        """Return whether a batch of so many frames has room, and the probe has the shape they are for."""
        return n_frames <= len(self.frames) and self._probe_shape == probe.shape


class _Run:
    """One update, stage by stage; workers take each stage together."""

    def __init__(
        self,
        object_: Object,
        probe: Probe,
        batch: Batch,
        steps: Steps,
        mask: Mask | None,
        buffers: _Buffers,
    ) -> None:
        self._object, self._probe, self._batch, self._steps = object_, probe, batch, steps
        self._buffers, self._kernels = buffers, _kernels()
        self._valid = buffers.everywhere if mask is None else mask
        self._corners = np.ascontiguousarray(batch.corners, np.int64)
        self._weights = batch.probe_weights if steps.probe_step else np.zeros(len(self._corners), np.float32)
        self._probes = probe[None]
        self._peak = self._kernels.peak_intensity(probe)
        self.errors = np.empty(len(self._corners), np.float32)
        if batch.shifts is not None:
            self._probes = np.empty((len(self._corners), *probe.shape), np.complex64)
            self._spectrum = scipy.fft.fft2(probe, norm="forward")
            frequency = np.fft.fftfreq(probe.shape[-1])
            self._ramps = np.exp(-2j * np.pi * batch.shifts[..., None] * frequency).astype(np.complex64)

    def correct_waves(self, worker: int) -> None:
        """Leave the corrections of the exit waves of a share of the frames, and the frames' errors."""
        batch, kernels, is_poisson = self._batch, self._kernels, self._steps.is_poisson
        corners = self._corners.tolist()
        for frame in self._frames_of(worker):
            (row, column), waves = corners[frame], self._buffers.frames[frame]
            halves = np.asarray(batch.amplitudes[frame], np.float16).view(np.uint16)
            probe = self._probe_of(frame)
            kernels.exit_waves(self._object, probe, row, column, waves.padded)
            waves.to_detector()
            self.errors[frame] = kernels.modulus_correction(waves.pairs, halves, self._valid, is_poisson)
            waves.to_sample()
            if batch.gradients is not None:
                gradients = batch.gradients[frame]
                kernels.position_gradient(waves.padded, probe, self._object, row, column, gradients)

    def move_rows(self, worker: int) -> None:
        """Move a share of the object's rows, and sum what they say about the probe."""
        buffers, steps, n_workers = self._buffers, self._steps, len(self._buffers.probe_sums)
        self._kernels.move_rows(
            self._object.view(np.float32), self._probes.view(np.float32), buffers.pairs,
            self._corners, np.argsort(self._corners[:, 1]),
            self._weights, self._batch.shifts is not None, worker, n_workers,
            self._peak, steps.alpha, steps.object_step,
            buffers.probe_sums[worker].view(np.float32), buffers.transmissions[worker],
        )  # fmt: skip

    def shift_back(self, worker: int) -> None:
        """Sum spectra: one inverse transform for the batch brings them all back."""
        for frame in self._frames_of(worker):
            if self._weights[frame]:
                waves = self._buffers.frames[frame]
                waves.to_detector()
                self._kernels.apply_ramp(waves.padded, *self._ramps[frame].conj())
                self._buffers.probe_sums[worker] += waves.values

    def move_probe(self) -> None:
        """Move the probe by what all workers have summed."""
        sums = self._buffers.probe_sums
        if self._batch.shifts is not None:
            sums = scipy.fft.ifft2(sums.sum(axis=0, keepdims=True))
        steps = self._steps
        self._kernels.move_probe(
            self._probe,
            sums,
            self._buffers.transmissions,
            steps.alpha,
            steps.probe_step,
            steps.probe_photons,
        )

    def _frames_of(self, worker: int) -> range:
        return range(worker, len(self._corners), len(self._buffers.probe_sums))

    def _probe_of(self, frame: int) -> Probe:
        """Return the probe at the frame's fraction of a pixel, which is kept for the other stages."""
        if self._batch.shifts is None:
            return self._probe
        waves = self._buffers.frames[frame]
        waves.values[...] = self._spectrum
        self._kernels.apply_ramp(waves.padded, *self._ramps[frame])
        waves.to_sample()
        self._probes[frame] = waves.values
        return self._probes[frame]


class _FrameWaves:
    """One frame's waves, transformed in place and neither way normalised.

    Parameters
    ----------
    padded : (mode, y, x and `_PADDING`) complex64
        Memory for the waves. `values` is the part that holds them, `pairs` all of it as float32.
    n_columns : int
    """

    def __init__(self, padded: Waves, n_columns: int) -> None:
        self.padded, self.pairs = padded, padded.view(np.float32)
        self.values = values = padded[..., :n_columns]
        if not _has_fftw():
            self.to_detector = lambda: self._write(scipy.fft.fft2(values, overwrite_x=True))
            self.to_sample = lambda: self._write(scipy.fft.ifft2(values, norm="forward", overwrite_x=True))
            return
        pyfftw = importlib.import_module("pyfftw")
        # A measured plan is no faster, and may round differently on another day. An estimated one takes twice
        # as long at some sizes where it may not begin with the rows.
        plans = [
            pyfftw.FFTW(values, values, axes=(2, 1), direction=f"FFTW_{way}", flags=("FFTW_ESTIMATE",))
            for way in ("FORWARD", "BACKWARD")
        ]
        self.to_detector, self.to_sample = (plan.execute for plan in plans)

    def _write(self, result: Array) -> None:
        if result is not self.values:
            self.values[...] = result


def _aligned(shape: tuple[int, ...]) -> Array:
    if not _has_fftw():
        return np.empty(shape, np.complex64)
    return importlib.import_module("pyfftw").empty_aligned(shape, "complex64")


def _kernels() -> Any:
    """Return the compiled loops, imported at the first call: numba takes its time."""
    return importlib.import_module("operators.kernels")
