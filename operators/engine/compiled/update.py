"""The update of `operators.engine.epie` in compiled loops: equal to rounding, several times as fast.

The reference is `operators.engine.epie`; this file says in what order memory is touched, not what an update
is. Workers first take frames, which are independent until their corrections meet, then rows of the object:
one row of all corrections is summed and applied while it is in the nearest cache, so that no sums as large
as the object are ever written. Between compiled loops Python finds little of itself in the caches: a
worker's stage is one call, FFTW's transforms included.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.fft

from operators.arrays import Array, Mask, Object, Probe
from operators.engine.compiled.fftw import Transforms, empty_waves, has_fftw
from operators.engine.epie import Accumulators, Batch, Steps
from operators.engine.frame_store import held

_NO_GRADIENTS = np.empty((0, 5), np.float32)

EachWorker = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]


def can_compile() -> bool:
    """Return whether numba and FFTW are installed; nothing is imported."""
    return importlib.util.find_spec("numba") is not None and has_fftw()


class CompiledUpdate:
    """Callable like `operators.engine.epie.update`, for NumPy arrays, with buffers kept from call to call.

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
        """Move `object_` and `probe` in place and return the errors; see `operators.engine.epie.update`.

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
    """Compiled loops, exit waves of a batch with their transforms, and what each worker sums up."""

    def __init__(self, n_frames: int, probe_shape: tuple[int, int, int], n_workers: int) -> None:
        n_modes, n_rows, n_columns = probe_shape
        # Only now: numba takes its time.
        self.kernels: Any = importlib.import_module("operators.engine.compiled.kernels")
        self.waves = empty_waves((n_frames, n_modes, n_rows, n_columns))
        self.transforms = Transforms(self.waves[0, :, :, :n_columns])
        self.probe_sums = np.empty((n_workers, *probe_shape), np.complex64)
        self.transmissions = np.empty((n_workers, n_rows, n_columns), np.float32)
        self.everywhere = np.ones((n_rows, n_columns), bool)

    def fit(self, n_frames: int, probe: Probe) -> bool:
        """Return whether a batch of so many frames has room, and the probe has the shape they are for."""
        return n_frames <= len(self.waves) and self.probe_sums.shape[1:] == probe.shape


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
        self._buffers, self._kernels = buffers, buffers.kernels
        self._amplitudes, self._slots = held(np, batch.amplitudes)
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
        buffers, gradients = self._buffers, self._batch.gradients
        share = buffers.transforms.to_sample, worker, len(buffers.probe_sums), buffers.waves
        if self._batch.shifts is not None:
            self._kernels.shift_probes(self._spectrum, self._ramps, *share, self._probes)
        self._kernels.correct_waves(
            self._object, self._probes, self._corners, self._amplitudes.view(np.uint16), self._slots,
            self._valid, self._steps.is_poisson, buffers.transforms.to_detector, *share,
            self.errors, _NO_GRADIENTS if gradients is None else gradients,
        )  # fmt: skip

    def move_rows(self, worker: int) -> None:
        """Move a share of the object's rows, and sum what they say about the probe."""
        buffers, steps, n_workers = self._buffers, self._steps, len(self._buffers.probe_sums)
        self._kernels.move_rows(
            self._object.view(np.float32), self._probes.view(np.float32), buffers.waves.view(np.float32),
            self._corners, np.argsort(self._corners[:, 1]),
            self._weights, self._batch.shifts is not None, worker, n_workers,
            self._peak, float(steps.alpha), float(steps.object_step),
            buffers.probe_sums[worker].view(np.float32), buffers.transmissions[worker],
        )  # fmt: skip

    def shift_back(self, worker: int) -> None:
        """Sum spectra: one inverse transform for the batch brings them all back."""
        buffers = self._buffers
        share = buffers.transforms.to_detector, worker, len(buffers.probe_sums), buffers.waves
        self._kernels.shift_back(self._weights, self._ramps, *share, buffers.probe_sums[worker])

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
            float(steps.alpha),
            float(steps.probe_step),
            float(steps.probe_photons),
        )
