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
from operators.probe import with_power

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
        n_rows, n_columns = probe_shape[1:]
        self.padded = _aligned((n_frames, *probe_shape[:2], n_columns + _PADDING))
        self.waves = self.padded[..., :n_columns]
        self.transforms = [_Transform(waves) for waves in self.waves]
        self.probe_sums = np.empty((n_workers, *probe_shape), np.complex64)
        self.transmissions = np.empty((n_workers, n_rows, n_columns), np.float32)

    def fit(self, n_frames: int, probe: Probe) -> bool:
        """Return whether a batch of so many frames has room, and the probe has the shape they are for."""
        return n_frames <= len(self.waves) and self.waves.shape[1:] == probe.shape


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
        self._valid = np.ones(probe.shape[1:], np.float32) if mask is None else mask.astype(np.float32)
        self._corners = np.ascontiguousarray(batch.corners, np.int64)
        self._weights = batch.probe_weights if steps.probe_step else np.zeros(len(self._corners), np.float32)
        self._probes = probe[None]
        self._peak = np.float32(self._kernels.peak_intensity(probe))  # which comes as a Python float
        self.errors = np.empty(len(self._corners), np.float32)
        if batch.shifts is not None:
            self._probes = np.empty((len(self._corners), *probe.shape), np.complex64)
            self._spectrum = scipy.fft.fft2(probe, norm="forward")
            frequency = np.fft.fftfreq(probe.shape[-1])
            self._ramps = np.exp(-2j * np.pi * batch.shifts[..., None] * frequency).astype(np.complex64)

    def correct_waves(self, worker: int) -> None:
        """Leave the corrections of the exit waves of a share of the frames, and the frames' errors."""
        batch, buffers, kernels = self._batch, self._buffers, self._kernels
        for frame in self._frames_of(worker):
            row, column = self._corners[frame]
            halves = np.asarray(batch.amplitudes[frame], np.float16).view(np.uint16)
            probe, waves, transform = self._probe_of(frame), buffers.padded[frame], buffers.transforms[frame]
            kernels.exit_waves(self._object, probe, row, column, waves)
            transform.forward()
            self.errors[frame] = kernels.modulus_correction(
                waves.view(np.float32), halves, self._valid, self._steps.is_poisson
            )
            transform.inverse()
            if batch.gradients is not None:
                gradients = batch.gradients[frame]
                kernels.position_gradient(waves, probe, self._object, row, column, gradients)

    def move_rows(self, worker: int) -> None:
        """Move a share of the object's rows, and sum what they say about the probe."""
        buffers, steps = self._buffers, self._steps
        buffers.probe_sums[worker] = 0
        buffers.transmissions[worker] = 0
        top, n_pixels = int(self._corners[:, 0].min()), self._probe.shape[-1]
        n_rows = int(self._corners[:, 0].max()) + n_pixels - top
        start, stop = (top + n_rows * part // len(buffers.probe_sums) for part in (worker, worker + 1))
        object_, probes, waves, probe_sums = (
            values.view(np.float32)
            for values in (self._object, self._probes, buffers.padded, buffers.probe_sums[worker])
        )
        self._kernels.move_rows(
            object_, probes, waves, self._corners, np.argsort(self._corners[:, 1]),
            self._weights, self._batch.shifts is not None, start, stop,
            self._peak, np.float32(steps.alpha), np.float32(steps.object_step),
            probe_sums, buffers.transmissions[worker],
        )  # fmt: skip

    def shift_back(self, worker: int) -> None:
        """Sum spectra: one inverse transform for the batch brings them all back."""
        buffers = self._buffers
        for frame in self._frames_of(worker):
            if self._weights[frame]:
                buffers.transforms[frame].forward()
                self._kernels.apply_ramp(buffers.padded[frame], *self._ramps[frame].conj())
                buffers.probe_sums[worker] += buffers.waves[frame]

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
            np.float32(steps.alpha),
            np.float32(steps.probe_step),
        )
        if steps.probe_photons:
            self._probe[...] = with_power(self._probe, steps.probe_photons)

    def _frames_of(self, worker: int) -> range:
        return range(worker, len(self._corners), len(self._buffers.probe_sums))

    def _probe_of(self, frame: int) -> Probe:
        """Return the probe at the frame's fraction of a pixel, which is kept for the other stages."""
        if self._batch.shifts is None:
            return self._probe
        waves = self._buffers.waves[frame]
        waves[...] = self._spectrum
        self._kernels.apply_ramp(self._buffers.padded[frame], *self._ramps[frame])
        self._buffers.transforms[frame].inverse()
        self._probes[frame] = waves
        return self._probes[frame]


class _Transform:
    """Transforms of `waves` (mode, y, x) in place, neither way normalised."""

    def __init__(self, waves: Waves) -> None:
        self._waves = waves
        if not _has_fftw():
            self.forward = lambda: self._write(scipy.fft.fft2(waves, overwrite_x=True))
            self.inverse = lambda: self._write(scipy.fft.ifft2(waves, norm="forward", overwrite_x=True))
            return
        pyfftw = importlib.import_module("pyfftw")
        # A measured plan is no faster, and may round differently on another day. An estimated one is half as
        # fast where it takes the columns first.
        plans = [
            pyfftw.FFTW(waves, waves, axes=(2, 1), direction=f"FFTW_{way}", flags=("FFTW_ESTIMATE",))
            for way in ("FORWARD", "BACKWARD")
        ]
        self.forward, self.inverse = (plan.execute for plan in plans)

    def _write(self, result: Array) -> None:
        if result is not self._waves:
            self._waves[...] = result


def _aligned(shape: tuple[int, ...]) -> Array:
    if not _has_fftw():
        return np.empty(shape, np.complex64)
    return importlib.import_module("pyfftw").empty_aligned(shape, "complex64")


def _kernels() -> Any:
    """Return the compiled loops, imported at the first call: numba takes its time."""
    return importlib.import_module("operators.kernels")
