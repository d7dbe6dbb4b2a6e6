"""The update of `operators.engine.epie` as CUDA kernels: their source and what it is compiled with."""

from importlib import resources

from operators.engine.epie import OVERLAP_LIMIT, TINY

# C++ as the sources need it; division and square root to two units in the last place, as transforms are
OPTIONS = ("-std=c++17", "-prec-div=false", "-prec-sqrt=false")
_FILES = "common.cu", "moves.cu", "batched.cu", "fused.cu"


def source() -> str:
    """Return the CUDA C++ of all kernels, which includes nothing else."""
    folder = resources.files(__package__)
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in _FILES)


def defines(n_pixels: int, n_modes: int) -> tuple[str, ...]:
    """Return the options, beside `OPTIONS`, that make the source one for windows and probes of this size."""
    return (
        f"-DN_PIXELS={n_pixels}",
        f"-DN_MODES={n_modes}",
        f"-DTINY={TINY!r}f",
        f"-DOVERLAP_LIMIT={OVERLAP_LIMIT!r}f",
    )
