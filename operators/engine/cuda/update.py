"""The update of `operators.engine.epie` as CUDA kernels: equal to rounding, in one launch.

Which kernel runs after which and what memory they share; the sources say what each computes. At 128 x 128
pixels an update is a few microseconds of a device's time per frame, less than Python needs to start one
kernel. So everything that differs from update to update is written into one small buffer and copied in one
piece, and all kernels are captured in a CUDA graph that is launched as a whole. Nothing is read back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from operators.arrays import Array, ArrayModule, Corners, Mask, Object, Probe, array_module, to_numpy
from operators.engine.epie import Accumulators, Batch, Steps, update
from operators.engine.frame_store import held
from operators.patches import checked_corners

# As common.cu and moves.cu declare them.
STEPS = np.dtype(
    [
        ("object_step", "f4"),
        ("probe_step", "f4"),
        ("alpha", "f4"),
        ("probe_photons", "f4"),
        ("n_frames", "i4"),
        ("is_poisson", "i4"),
        ("unused", "i4", 2),
    ]
)
FRAME = np.dtype([("slot", "i4"), ("row", "i4"), ("column", "i4"), ("probe_weight", "f4")])
N_PEAKS = 4

N_THREADS = 256
FRAMES_PER_BLOCK = 8  # as batched.cu
FUSED_SHAPE = (1, 128, 128)
FUSED_THREADS = 1024
FUSED_SHARED_BYTES = 8 * 128 * 129 + 8 * 128 + 2 * 128 * 130  # tile, turns and amplitudes of fused.cu
_MOST_GRAPHS = 8  # kept: of one canvas, with and without the probe, and a few before it grew


class Device(Protocol):
    """What an update needs of a CUDA device; `operators.engine.cuda.device.CudaDevice` is one."""

    shared_bytes: int  # that a block can have

    def address(self, array: Array) -> int:
        """Return where the array's first element lies."""

    def upload(self, values: np.ndarray, to: Array) -> None:
        """Copy bytes to the device in the order of its work; `values` may be changed at once."""

    def clear(self, array: Array) -> None:
        """Fill the array with zeros."""

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int],
        n_threads: int,
        arguments: tuple[Any, ...],
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel on `grid` blocks of `n_threads`, with so much dynamic shared memory."""

    def transform(self, waves: Array, *, is_inverse: bool) -> None:
        """Transform (wave, y, x) over its last two axes in place, neither way normalised."""

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats everything `run` asks of the device; nothing runs yet."""


class CudaUpdate:
    """Callable like `operators.engine.epie.update`, with buffers and graphs kept from call to call.

    Amplitudes are read in half precision, as the frame store has them. Batches with fractional positions or
    position gradients, and arrays of another module, go to the reference.

    Parameters
    ----------
    open_device : callable
        Returns the `Device` for a side of the window and a number of modes.
    xp : cupy
    is_fused : bool
        Whether one kernel does all of a frame between object and sums, where it can: 128 x 128 pixels, one
        mode, 163 KiB of shared memory. Else transforms are cuFFT's, over the whole batch.
    """

    def __init__(
        self, open_device: Callable[[int, int], Device], xp: ArrayModule, *, is_fused: bool = False
    ) -> None:
        self._open_device, self._xp, self.is_fused = open_device, xp, is_fused
        self._devices: dict[tuple[int, ...], Device] = {}
        self._sequence: _Sequence | None = None

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
        """Move `object_` and `probe` in place and return the errors; see `operators.engine.epie.update`."""
        is_other = array_module(object_) is not self._xp or batch.shifts is not None
        if is_other or batch.gradients is not None:
            return update(object_, probe, batch, steps, sums, mask=mask)
        amplitudes, slots = held(self._xp, batch.amplitudes)
        corners = checked_corners(object_.shape, batch.corners, probe.shape[-1])
        sequence = self._sequence_for(probe.shape, len(corners))
        sequence.write(steps, slots, corners, to_numpy(batch.probe_weights))
        valid = sequence.all_valid if mask is None else mask
        arrays = _Arrays(object_, probe, amplitudes, valid, sums.correction, sums.illumination)
        sequence.run(arrays, moves_probe=bool(steps.probe_step), keeps_power=bool(steps.probe_photons))
        return sequence.errors[: len(corners)].copy()

    def _sequence_for(self, probe_shape: tuple[int, int, int], n_frames: int) -> "_Sequence":
        """Return the sequence for so many frames or more: a smaller batch is a larger one not filled."""
        now = self._sequence
        if now is None or now.probe_shape != probe_shape or now.capacity < n_frames:
            key = probe_shape[-1], probe_shape[0]
            if key not in self._devices:
                self._devices[key] = self._open_device(*key)
            device = self._devices[key]
            can_fuse = probe_shape == FUSED_SHAPE and device.shared_bytes >= FUSED_SHARED_BYTES
            now = _Sequence(device, self._xp, probe_shape, n_frames, is_fused=self.is_fused and can_fuse)
            self._sequence = now
        return now


class _Arrays(NamedTuple):
    """What an update works on and its caller owns."""

    object: Object
    probe: Probe
    amplitudes: Array  # (slot, ky, kx) float16
    valid: Mask
    correction: Array
    illumination: Array

    def check(self) -> None:
        """Raise ValueError unless the arrays are laid out as kernels, which see addresses only, take them."""
        dtypes = "complex64", "complex64", "float16", "bool", "complex64", "float32"
        for name, array, dtype in zip(self._fields, self, dtypes, strict=True):
            if array.dtype != dtype or not array.flags.c_contiguous:
                raise ValueError(
                    f"the CUDA update expects {name} to be C-ordered {dtype}, got {array.dtype} of strides "
                    f"{array.strides} and shape {array.shape}"
                )


class _Sequence:
    """The kernels of one update for up to `capacity` frames, on buffers whose addresses stay."""

    def __init__(
        self,
        device: Device,
        xp: ArrayModule,
        probe_shape: tuple[int, int, int],
        capacity: int,
        *,
        is_fused: bool,
    ) -> None:
        self._device, self._is_fused = device, is_fused
        self.probe_shape, self.capacity = probe_shape, capacity
        n_modes, n_pixels, _ = probe_shape
        n_values = n_pixels**2
        self._host_orders = np.zeros(STEPS.itemsize + capacity * FRAME.itemsize, np.uint8)
        self._header = self._host_orders[: STEPS.itemsize].view(STEPS)
        self._frames = self._host_orders[STEPS.itemsize :].view(FRAME)
        self._orders = xp.zeros(self._host_orders.size, np.uint8)
        self._intensity = xp.zeros(n_values, np.float32)
        self.all_valid = xp.ones((n_pixels, n_pixels), bool)
        # all that has to be zero before an update, in one piece
        self._sums = xp.zeros(2 * n_modes * n_values + n_values + N_PEAKS + capacity, np.float32)
        ends = np.cumsum([2 * n_modes * n_values, n_values, N_PEAKS])
        self._probe_sums, self._transmission, self._peaks, self.errors = (
            self._sums[start:stop] for start, stop in zip((0, *ends), (*ends, None), strict=True)
        )
        if not is_fused:
            self._waves = xp.zeros((capacity * n_modes, n_pixels, n_pixels), np.complex64)
        self._graphs: dict[tuple[Any, ...], Callable[[], None] | None] = {}

    def write(self, steps: Steps, slots: np.ndarray, corners: Corners, probe_weights: np.ndarray) -> None:
        """Tell the device what this update is about."""
        self._header[0] = (
            steps.object_step, steps.probe_step, steps.alpha, steps.probe_photons,
            len(slots), steps.is_poisson, 0,
        )  # fmt: skip
        frames = self._frames[: len(slots)]
        frames["slot"], frames["row"], frames["column"] = slots, corners[:, 0], corners[:, 1]
        frames["probe_weight"] = probe_weights
        self._device.upload(self._host_orders, self._orders)

    def run(self, arrays: _Arrays, *, moves_probe: bool, keeps_power: bool) -> None:
        """Run the update, from the second time on as a graph: the first has kernels loaded and plans made."""

        def run() -> None:
            self._run(arrays, moves_probe=moves_probe, keeps_power=keeps_power)

        # A graph holds addresses and launches, and is right for whatever lies there.
        addresses = (self._device.address(array) for array in arrays)
        key = *addresses, arrays.object.shape, moves_probe, keeps_power
        if key not in self._graphs:
            while len(self._graphs) >= _MOST_GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            arrays.check()
            self._graphs[key] = None
            run()
            return
        graph = self._graphs[key] or self._device.captured(run)
        self._graphs[key] = graph
        graph()

    def _run(self, arrays: _Arrays, *, moves_probe: bool, keeps_power: bool) -> None:
        steps, frames = self._orders[: STEPS.itemsize], self._orders[STEPS.itemsize :]
        width = np.int32(arrays.object.shape[1])
        self._device.clear(self._sums)
        self._launch("probe_intensity", 1, arrays.probe, self._intensity, self._peaks)
        correct = self._correct_fused if self._is_fused else self._correct_batched
        correct(steps, frames, width, arrays)
        self._launch(
            "move_object", self.capacity,
            steps, frames, self._peaks, width, arrays.correction, arrays.illumination, arrays.object,
        )  # fmt: skip
        if not moves_probe:
            return
        self._launch("largest_transmission", 1, self._transmission, self._peaks)
        self._launch("move_probe", 1, steps, self._probe_sums, self._transmission, self._peaks, arrays.probe)
        if keeps_power:
            self._launch("scale_probe", 1, steps, self._peaks, arrays.probe)

    def _correct_batched(self, steps: Array, frames: Array, width: np.int32, arrays: _Arrays) -> None:
        object_, probe, waves = arrays.object, arrays.probe, self._waves
        self._launch("exit_waves", self.capacity, steps, frames, object_, width, probe, waves)
        self._device.transform(waves, is_inverse=False)
        self._launch(
            "modulus_correction", self.capacity,
            steps, frames, arrays.amplitudes, arrays.valid, waves, self.errors,
        )  # fmt: skip
        self._device.transform(waves, is_inverse=True)
        self._launch(
            "add_corrections", -(-self.capacity // FRAMES_PER_BLOCK),
            steps, frames, object_, width, probe, self._intensity, waves,
            arrays.correction, arrays.illumination, self._probe_sums, self._transmission,
        )  # fmt: skip

    def _correct_fused(self, steps: Array, frames: Array, width: np.int32, arrays: _Arrays) -> None:
        arguments = (
            steps, frames, arrays.amplitudes, arrays.valid, arrays.object, width, arrays.probe,
            self._intensity, arrays.correction, arrays.illumination, self._probe_sums, self._transmission,
            self.errors,
        )  # fmt: skip
        grid = self.capacity, 1
        self._device.launch("fused_corrections", grid, FUSED_THREADS, arguments, FUSED_SHARED_BYTES)

    def _launch(self, kernel: str, n_rows: int, *arguments: Any) -> None:
        """Run a kernel whose threads along x are the pixels of a window, with `n_rows` blocks along y."""
        n_values = self.probe_shape[-1] ** 2
        self._device.launch(kernel, (-(-n_values // N_THREADS), n_rows), N_THREADS, arguments)
