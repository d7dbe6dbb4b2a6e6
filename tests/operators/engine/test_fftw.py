"""FFTW's plans, run from compiled code, against scipy."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.fft

from operators.engine.compiled.update import can_compile

pytestmark = pytest.mark.skipif(not can_compile(), reason="needs numba and FFTW, of the extra `fast`")


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 31, 31), (2, 20, 33)])
def test_plans_transform_every_frame_there_and_back(shape):
    from operators.engine.compiled.fftw import Transforms, empty_waves
    from operators.engine.compiled.kernels import transform

    rng = np.random.default_rng(0)
    waves = empty_waves((4, *shape))
    values = waves[..., : shape[-1]]
    start = (rng.standard_normal(values.shape) + 1j * rng.standard_normal(values.shape)).astype(np.complex64)
    values[...] = start
    plans = Transforms(values[0])
    for frame in waves:
        transform(plans.to_detector, frame)
    expected = scipy.fft.fft2(start)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    for frame in waves:
        transform(plans.to_sample, frame)
    np.testing.assert_allclose(values / (shape[1] * shape[2]), start, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_columns", [31, 64, 120, 128, 256])
def test_rows_are_an_odd_number_of_cache_lines_and_frames_begin_at_one(n_columns):
    from operators.engine.compiled.fftw import empty_waves

    waves = empty_waves((3, 1, 5, n_columns))
    assert waves.shape[-1] >= n_columns
    assert waves.strides[-2] // 64 % 2 == 1
    assert all(frame.ctypes.data % 32 == 0 and frame.strides[-2] % 64 == 0 for frame in waves)


LOADS_FFTW = """
import sys
from operators.engine.compiled.fftw import empty_waves
empty_waves((1, 1, 8, 8))
assert "pyfftw" in sys.modules
assert "dask" not in sys.modules and "pandas" not in sys.modules
"""


def test_fftw_loads_no_dask_which_takes_most_of_a_second():
    subprocess.run([sys.executable, "-c", LOADS_FFTW], check=True)
