"""The CUDA sources compile for the devices we name, with either compiler that a computer may have."""

import ctypes
import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.engine.cuda.sources import OPTIONS, defines, source

ARCHITECTURES = ("sm_80", "sm_90")


def compile_with_nvcc(text: str, options: tuple[str, ...], folder: Path) -> str:
    """Returns what the compiler says, nothing if it is content."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on the PATH")
    path = folder / "kernels.cu"
    path.write_text(text)
    command = ["nvcc", "-cubin", *options, "-o", str(folder / "kernels.cubin"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def compile_with_nvrtc(text: str, options: tuple[str, ...], folder: Path) -> str:
    """Returns what the compiler says, nothing if it is content; needs neither driver nor device."""
    nvrtc = ctypes.CDLL(str(find_nvrtc()))
    program = ctypes.c_void_p()
    given = [option.encode() for option in options]
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None) == 0
    status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
    n_bytes = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(n_bytes))
    log = ctypes.create_string_buffer(n_bytes.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode() if status else ""


def find_nvrtc() -> Path:
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None else None
    found = [path for folder in folders or () for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*"))]
    if not found:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    return found[-1]


compilers = pytest.mark.parametrize(
    "compiler", [compile_with_nvcc, compile_with_nvrtc], ids=["nvcc", "nvrtc"]
)


@pytest.mark.slow
@compilers
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("n_pixels", "n_modes"), [(128, 1), (100, 3)])
def test_the_sources_compile(
    compiler: Callable[[str, tuple[str, ...], Path], str], architecture, n_pixels, n_modes, tmp_path
):
    options = (*OPTIONS, *defines(n_pixels, n_modes), f"-arch={architecture}")
    assert compiler(source(), options, tmp_path) == ""


@compilers
def test_an_error_is_told(compiler: Callable[[str, tuple[str, ...], Path], str], tmp_path):
    said = compiler("__global__ void kernel(float* a) { *a = missing; }", ("-arch=sm_90",), tmp_path)
    assert '"missing" is undefined' in said
