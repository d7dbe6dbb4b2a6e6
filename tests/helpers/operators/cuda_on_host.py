"""A device for `operators.engine.cuda.update` that runs the very CUDA sources on the processor.

They are compiled as C++ behind `cuda_on_host.h`; transforms are SciPy's. Graphs are kept as CUDA keeps them:
what was launched, on which addresses, with which numbers, and nothing of the Python that asked for it.
"""

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft

from operators.arrays import Array
from operators.engine.cuda.sources import defines, source

HEADER = Path(__file__).with_name("cuda_on_host.h")
# _FORTIFY_SOURCE takes a jump to another stack for an error
OPTIONS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-U_FORTIFY_SOURCE", "-ffp-contract=off")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to run CUDA on the host")


class HostDevice:
    """Kernels for windows and probes of one size; see `operators.engine.cuda.update.Device`.

    Parameters
    ----------
    n_pixels, n_modes : int
    is_downwards : bool
        In which order the threads of a block take turns.
    text : str
        The sources, or what a test has made of them.
    """

    shared_bytes = 227 * 1024

    def __init__(
        self, n_pixels: int, n_modes: int, *, is_downwards: bool = False, text: str = source()
    ) -> None:
        self._launch = _compiled(text, n_pixels, n_modes)
        self._is_downwards = is_downwards
        self._recorded: list[Callable[[], Any]] | None = None

    def address(self, array: Array) -> int:
        return array.ctypes.data

    def upload(self, values: np.ndarray, to: Array) -> None:
        assert self._recorded is None, "a graph would repeat the values of one update"
        to[...] = values

    def clear(self, array: Array) -> None:
        self._do(functools.partial(array.fill, 0))

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int],
        n_threads: int,
        arguments: tuple[Any, ...],
        shared_bytes: int = 0,
    ) -> None:
        values = [_c_value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))

        def run(_kept_alive: list[Any] = values) -> None:
            status = self._launch(
                kernel.encode(), *grid, n_threads, shared_bytes, self._is_downwards, pointers
            )
            assert status == 0, f"{kernel} is unknown or writes beyond its {shared_bytes} shared bytes"

        self._do(run)

    def transform(self, waves: Array, *, is_inverse: bool) -> None:
        def run() -> None:
            waves[...] = scipy.fft.ifft2(waves, norm="forward") if is_inverse else scipy.fft.fft2(waves)

        self._do(run)

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        self._recorded = []
        run()
        recorded, self._recorded = self._recorded, None

        def replay() -> None:
            for step in recorded:
                step()

        return replay

    def _do(self, step: Callable[[], Any]) -> None:
        if self._recorded is None:
            step()
        else:
            self._recorded.append(step)


def _c_value(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    assert isinstance(argument, np.int32)
    return ctypes.c_int32(int(argument))


@functools.cache
def _compiled(text: str, n_pixels: int, n_modes: int) -> Any:
    names = re.findall(r'extern "C" __global__ void\s+(?:__launch_bounds__\(.*\)\s+)?(\w+)\(', text)
    if (n_pixels, n_modes) != (128, 1):
        names.remove("fused_corrections")
    arguments = "dim3{(unsigned)x, (unsigned)y, 1}, n_threads, shared_bytes, is_downwards, arguments"
    table = [f'if (!strcmp(name, "{name}")) return host::launch({name}, {arguments});' for name in names]
    with tempfile.TemporaryDirectory() as folder:
        cpp, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        cpp.write_text(
            f'#include "{HEADER}"\n{text}\n'
            'extern "C" int launch(const char* name, int x, int y, int n_threads, size_t shared_bytes,\n'
            "                      int is_downwards, void** arguments) {\n"
            + "\n".join(table)
            + "\nreturn -1;\n}\n"
        )
        command = ["g++", *OPTIONS, *defines(n_pixels, n_modes), "-o", str(library), str(cpp)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        launch = ctypes.CDLL(str(library)).launch
    launch.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 3, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    return launch
