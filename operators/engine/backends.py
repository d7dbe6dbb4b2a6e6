"""What runs an update, and where its arrays live, by name.

The only threads of `operators` are here; they share one update, and nobody sees them.
"""

import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, get_args

import numpy as np

from operators.arrays import Array, ArrayModule, Mask, Object, Probe, get_array_module
from operators.engine.compiled.update import CompiledUpdate, can_compile
from operators.engine.config import BackendName
from operators.engine.cuda.update import CudaUpdate
from operators.engine.epie import Accumulators, Batch, Steps, update

BACKENDS = get_args(BackendName)


class Update(Protocol):
    """What `operators.engine.epie.update` does."""

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
        """Move object and probe in place, and return the errors."""


class Backend(NamedTuple):
    """An array module and the update that is fastest on its arrays."""

    name: str
    xp: ArrayModule
    update: Update


def get_backend(name: str, threads: int = 1) -> Backend:
    """Return the backend called `name`, ready to run: what has to be compiled has been.

    Parameters
    ----------
    name : {"auto", "numpy", "compiled", "cupy", "cupy-fused"}
        "numpy" is the reference; "compiled" its equal in compiled loops, which needs the extra `fast`; "cupy"
        its equal on a CUDA device; "cupy-fused" is "cupy" with one kernel for each frame where that is
        possible, twice as fast; "auto" is the last of these that this computer has.
    threads : int
        Cores that share an update of "compiled"; the others do not read it.

    Raises
    ------
    ValueError
        If the name is another one, or this computer has no such backend.
    """
    if name not in BACKENDS:
        raise ValueError(f"expected a backend of {', '.join(BACKENDS)}, got {name!r}")
    if name == "compiled" and not can_compile():
        raise ValueError(
            "the backend 'compiled' needs numba and pyfftw: install ptychostream[fast], or choose 'auto'"
        )
    xp = np if name == "compiled" else get_array_module(name.removesuffix("-fused"))
    if xp is np and name != "numpy" and can_compile():
        compiled = _compiled_update(threads)
        _run_once(compiled)
        return Backend("compiled", np, compiled)
    if xp is np:
        return Backend("numpy", np, update)
    cuda = importlib.import_module("operators.engine.cuda.device")
    is_fused = name != "cupy"
    return Backend(
        "cupy-fused" if is_fused else "cupy", xp, CudaUpdate(cuda.CudaDevice, xp, is_fused=is_fused)
    )


def on_host(backend: Backend, threads: int) -> Backend:
    """Return this backend if its arrays are NumPy's, else the fastest one whose are."""
    return backend if backend.xp is np else get_host_backend(threads)


def get_host_backend(threads: int) -> Backend:
    """Return the fastest backend whose arrays are NumPy's, for work that is short or needs them."""
    return get_backend("compiled" if can_compile() else "numpy", threads)


def _compiled_update(threads: int) -> CompiledUpdate:
    if threads == 1:
        return CompiledUpdate()
    # Threads are enough: compiled loops and transforms release the interpreter lock.
    pool = ThreadPoolExecutor(threads, thread_name_prefix="refinement")
    return CompiledUpdate(n_workers=threads, each_worker=pool.map)


def _run_once(compiled: CompiledUpdate) -> None:
    """Compile for the types of an update, or load what was compiled before, on a scan of one dark frame."""
    steps = Steps(object_step=1, probe_step=1, alpha=1)
    for shifts in (None, np.zeros((1, 2), np.float32)):
        object_, probe = np.ones((4, 4), np.complex64), np.ones((1, 4, 4), np.complex64)
        amplitudes, corners = np.zeros((1, 4, 4), np.float16), np.zeros((1, 2), np.int64)
        batch = Batch(amplitudes, corners, np.ones(1, np.float32), shifts)
        compiled(object_, probe, batch, steps, Accumulators(object_.shape, np))
