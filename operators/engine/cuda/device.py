"""A CUDA device for `operators.engine.cuda.update`: kernels, transforms, uploads and graphs, by CuPy."""

from collections.abc import Callable
from typing import Any

import cupy
import cupyx
import cupyx.scipy.fft
import numpy as np

from operators.arrays import Array
from operators.engine.cuda.sources import OPTIONS, defines, source

_STATIC_SHARED_BYTES = 48 * 1024  # what a block may have without asking
_N_UPLOADS = 16  # in flight: further ahead the host waits, so that what it has asked for stays recent


class CudaDevice:
    """The kernels for windows and probes of one size on the current device; see `cuda.update.Device`.

    Compiling takes a few seconds, once per computer: CuPy keeps what it compiled.

    Parameters
    ----------
    n_pixels, n_modes : int
    """

    def __init__(self, n_pixels: int, n_modes: int) -> None:
        self._module = cupy.RawModule(code=source(), options=(*OPTIONS, *defines(n_pixels, n_modes)))
        self._kernels: dict[str, Any] = {}
        self._uploads: list[_Upload] = []
        self._plans: dict[tuple[int, ...], Any] = {}
        attribute = cupy.cuda.runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin
        self.shared_bytes = cupy.cuda.runtime.deviceGetAttribute(attribute, cupy.cuda.Device().id)

    def address(self, array: Array) -> int:
        """Return where the array's first element lies on the device."""
        return int(array.data.ptr)

    def upload(self, values: np.ndarray, to: Array) -> None:
        """Copy bytes to the device in the order of its work; `values` may be changed at once."""
        if not self._uploads or self._uploads[0].host.nbytes != values.nbytes:
            for upload in self._uploads:
                upload.is_done.synchronize()
            self._uploads = [_Upload(values.nbytes) for _ in range(_N_UPLOADS)]
        upload = self._uploads.pop(0)
        self._uploads.append(upload)
        upload.is_done.synchronize()
        upload.host[:] = values
        to.set(upload.host)
        upload.is_done.record()

    def clear(self, array: Array) -> None:
        """Fill the array with zeros."""
        array.data.memset_async(0, array.nbytes)

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int],
        n_threads: int,
        arguments: tuple[Any, ...],
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel on `grid` blocks of `n_threads`, with so much dynamic shared memory."""
        if kernel not in self._kernels:
            self._kernels[kernel] = self._module.get_function(kernel)
            if shared_bytes > _STATIC_SHARED_BYTES:
                self._kernels[kernel].max_dynamic_shared_size_bytes = shared_bytes
        self._kernels[kernel](grid, (n_threads,), arguments, shared_mem=shared_bytes)

    def transform(self, waves: Array, *, is_inverse: bool) -> None:
        """Transform (wave, y, x) over its last two axes in place, neither way normalised."""
        if waves.shape not in self._plans:
            self._plans = {waves.shape: cupyx.scipy.fft.get_fft_plan(waves, axes=(1, 2))}
        plan = self._plans[waves.shape]
        if is_inverse:
            cupyx.scipy.fft.ifft2(waves, norm="forward", overwrite_x=True, plan=plan)
        else:
            cupyx.scipy.fft.fft2(waves, norm="backward", overwrite_x=True, plan=plan)

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats everything `run` asks of the device as one CUDA graph; nothing runs yet."""
        # Work on the default stream cannot be captured; the graph runs on the stream it is launched from.
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            run()
            graph = stream.end_capture()
        return graph.launch


class _Upload:
    """Page-locked memory, without which a copy would wait for the device, and whether its copy is done."""

    def __init__(self, n_bytes: int) -> None:
        self.host = cupyx.empty_pinned(n_bytes, np.uint8)
        self.is_done = cupy.cuda.Event(block=True, disable_timing=True)
