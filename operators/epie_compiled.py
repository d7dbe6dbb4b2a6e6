"""The update of `operators.epie` in compiled loops: the same numbers to rounding, several times as fast.

Separate so that the reference stays readable: this file says in what order memory is touched, not what an
update is. Frames of a batch are independent until their corrections meet, so each worker takes its share
of them with its own sums, and its share of the object's rows once the sums are complete.
Used by `operators.refiner` where numba is installed; FFTW, where pyfftw is, does the transforms.
"""

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.fft

from operators.arrays import Array, Mask, Object, Probe
from operators.epie import TINY, Accumulators, Batch, Steps
from operators.probe import with_power

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
        Shares that a batch is cut into. The result depends on it by rounding.
    each_worker : callable
        Like `map`, which is the default: calls a function for each share. A thread pool's `map` works on
        them side by side.
    """

    def __init__(self, *, n_workers: int = 1, each_worker: EachWorker = map) -> None:
        self._n_workers, self._each_worker = n_workers, each_worker
        self._workers: list[_Worker] = []

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
        """Move `object_` and `probe` in place and return the errors; see `operators.epie.update`."""
        errors = np.empty(len(batch.corners), np.float32)
        shared = _Shared(object_, probe, batch, steps, errors, mask)
        workers = self._workers_for(probe.shape)
        for number, worker in enumerate(workers):
            worker.begin(sums if number == 0 else None, object_.shape)

        def take_frames(share: int) -> None:
            workers[share].accumulate(shared, range(share, len(errors), len(workers)))

        def take_rows(share: int) -> None:
            top, n_rows = shared.rows
            start, stop = (top + n_rows * part // len(workers) for part in (share, share + 1))
            _move_rows(shared, [worker.sums for worker in workers], start, stop)

        for task in (take_frames, take_rows):
            for _ in self._each_worker(task, range(len(workers))):
                pass
        if steps.probe_step:
            _move_probe(probe, workers, steps, batch.shifts is not None)
        return errors

    def _workers_for(self, probe_shape: tuple[int, int, int]) -> list["_Worker"]:
        if not self._workers or self._workers[0].correction.shape != probe_shape:
            self._workers = [_Worker(probe_shape) for _ in range(self._n_workers)]
        return self._workers


class _Shared:
    """What all workers read during one update."""

    def __init__(
        self, object_: Object, probe: Probe, batch: Batch, steps: Steps, errors: Array, mask: Mask | None
    ) -> None:
        self.object, self.probe, self.batch, self.steps, self.errors = object_, probe, batch, steps, errors
        self.valid = np.ones(probe.shape[1:], bool) if mask is None else mask
        self.intensity = np.empty(probe.shape[1:], np.float32)
        self.run = _kernels()
        self.run.intensity(probe, self.intensity)
        self.peak = self.intensity.max()
        self.corners = np.ascontiguousarray(batch.corners, np.int64)
        top = int(self.corners[:, 0].min())
        self.rows = top, int(self.corners[:, 0].max()) + probe.shape[1] - top
        if batch.shifts is not None:
            self.spectrum = scipy.fft.fft2(probe, norm="forward")
            frequency = np.fft.fftfreq(probe.shape[-1])
            self.ramps = np.exp(-2j * np.pi * batch.shifts[..., None] * frequency).astype(np.complex64)


class _Worker:
    """The buffers and sums of one share."""

    def __init__(self, probe_shape: tuple[int, int, int]) -> None:
        self._transform = _Transform(probe_shape)
        modulus, bits = np.empty(probe_shape[-1], np.float32), np.empty(probe_shape[-1], np.uint32)
        self._rows = modulus, bits, bits.view(np.float32)
        self._intensity = np.empty(probe_shape[1:], np.float32)
        self._shifted, self._unshifted = (np.empty(probe_shape, np.complex64) for _ in range(2))
        self._own_sums: Accumulators | None = None
        self.sums: Accumulators
        self.correction = np.zeros(probe_shape, np.complex64)
        self.transmission = np.zeros(probe_shape[1:], np.float32)

    def begin(self, sums: Accumulators | None, shape: tuple[int, int]) -> None:
        """Take the sums given, or, one worker of several, those of its own."""
        if sums is None:
            if self._own_sums is None or self._own_sums.correction.shape != shape:
                self._own_sums = Accumulators(shape, np)
            sums = self._own_sums
        self.sums = sums
        self.correction[...] = 0
        self.transmission[...] = 0

    def accumulate(self, shared: "_Shared", chosen: range) -> None:
        """Add what these frames say about object and probe to the sums."""
        batch = shared.batch
        for frame in chosen:
            row, column = shared.corners[frame]
            halves = np.asarray(batch.amplitudes[frame], np.float16).view(np.uint16)
            weight = batch.probe_weights[frame] if shared.steps.probe_step else np.float32(0)
            if batch.shifts is None:
                probe, intensity, probe_sums = shared.probe, shared.intensity, self.correction
            else:
                probe, intensity, probe_sums = self._shift_probe(shared, shared.ramps[frame])
            shared.errors[frame] = self._correct(shared, probe, row, column, halves)
            shared.run.add_corrections(
                self._transform.waves, probe, intensity, shared.object, row, column, weight,
                self.sums.correction, self.sums.illumination, probe_sums, self.transmission,
            )  # fmt: skip
            if batch.gradients is not None:
                shared.run.position_gradient(
                    self._transform.waves, probe, shared.object, row, column, batch.gradients[frame]
                )
            if batch.shifts is not None and weight:
                self._add_shifted_back(shared, shared.ramps[frame])

    def _correct(self, shared: "_Shared", probe: Probe, row: int, column: int, halves: Array) -> float:
        """Leave the corrections of the exit waves in the transform's buffer and return the error."""
        transform, waves = self._transform, self._transform.waves
        shared.run.exit_waves(shared.object, probe, row, column, waves)
        transform.forward()
        error = shared.run.modulus_correction(
            waves, halves, shared.valid, shared.steps.is_poisson, *self._rows
        )
        transform.inverse()
        return error

    def _shift_probe(self, shared: "_Shared", ramp: Array) -> tuple[Probe, Array, Probe]:
        """Return the probe and its intensity at a fraction of a pixel, and zeros to sum corrections in."""
        waves = self._transform.waves
        shared.run.apply_ramp(shared.spectrum, *ramp, waves)
        self._transform.inverse()
        self._shifted[...] = waves
        shared.run.intensity(self._shifted, self._intensity)
        self._unshifted[...] = 0
        return self._shifted, self._intensity, self._unshifted

    def _add_shifted_back(self, shared: "_Shared", ramp: Array) -> None:
        """Add to spectra: one inverse transform for the batch brings them all back."""
        waves = self._transform.waves
        waves[...] = self._unshifted
        self._transform.forward()
        shared.run.apply_ramp(waves, *ramp.conj(), self._unshifted)
        self.correction += self._unshifted


class _Transform:
    """Transforms of `waves` (mode, y, x) in place, neither way normalised."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        if not _has_fftw():
            self.waves = np.empty(shape, np.complex64)
            self.forward = lambda: self._write(scipy.fft.fft2(self.waves, overwrite_x=True))
            self.inverse = lambda: self._write(scipy.fft.ifft2(self.waves, norm="forward", overwrite_x=True))
            return
        pyfftw = importlib.import_module("pyfftw")
        self.waves = pyfftw.empty_aligned(shape, "complex64")
        # A measured plan is no faster at these sizes, and may round differently on another day.
        plans = [
            pyfftw.FFTW(
                self.waves, self.waves, axes=(1, 2), direction=f"FFTW_{direction}", flags=("FFTW_ESTIMATE",)
            )
            for direction in ("FORWARD", "BACKWARD")
        ]
        self.forward, self.inverse = (plan.execute for plan in plans)

    def _write(self, result: Array) -> None:
        if result is not self.waves:
            self.waves[...] = result


def _kernels() -> Any:
    """Return the compiled loops, imported at the first call: numba takes its time."""
    return importlib.import_module("operators.kernels")


def _move_rows(shared: _Shared, sums: list[Accumulators], start: int, stop: int) -> None:
    run, n, steps = shared.run, shared.probe.shape[-1], shared.steps
    first = sums[0]
    for more in sums[1:]:
        run.merge_sums(
            shared.corners, n, start, stop,
            first.correction, first.illumination, more.correction, more.illumination,
        )  # fmt: skip
    run.move_object(
        shared.object, shared.corners, n, start, stop, first.correction, first.illumination,
        shared.peak, np.float32(steps.alpha), np.float32(steps.object_step),
    )  # fmt: skip


def _move_probe(probe: Probe, workers: list[_Worker], steps: Steps, is_spectrum: bool) -> None:
    correction, transmission = workers[0].correction, workers[0].transmission
    for worker in workers[1:]:
        correction += worker.correction
        transmission += worker.transmission
    if is_spectrum:
        correction = scipy.fft.ifft2(correction)
    weight = (1 - steps.alpha) * transmission + steps.alpha * transmission.max() + np.float32(TINY)
    # a reciprocal: NumPy divides complex by real numbers as if both were complex
    probe += correction * (steps.probe_step / weight)
    if steps.probe_photons:
        probe[...] = with_power(probe, steps.probe_photons)
