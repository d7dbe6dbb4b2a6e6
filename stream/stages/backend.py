"""The engine's backend on several cores."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from operators.engine.backends import Backend, get_backend
from operators.engine.compiled.update import can_compile


def open_backend(device: str, threads: int) -> Backend:
    """Returns the backend called `device` on that many cores; see `operators.engine.backends.get_backend`.

    Threads are enough: compiled loops and transforms release the interpreter lock.
    """
    if threads == 1:
        return get_backend(device)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="refinement")
    return get_backend(device, n_workers=threads, each_worker=pool.map)


def on_host(backend: Backend, threads: int) -> Backend:
    """Returns this backend if its arrays are NumPy's, else the fastest one whose are."""
    return backend if backend.xp is np else open_host_backend(threads)


def open_host_backend(threads: int) -> Backend:
    """Returns the fastest backend whose arrays are NumPy's, for work that is short or needs them."""
    return open_backend("compiled" if can_compile() else "numpy", threads)
