import numpy as np
import pytest

from operators.arrays import (
    abs2,
    array_module,
    centre_origin,
    corner_origin,
    fft2,
    get_array_module,
    ifft2,
    to_numpy,
)
from tests.helpers.operators.strict_cupy import strict_cupy


def test_array_module_is_where_the_array_lives(xp):
    assert array_module(xp.zeros(3)) is xp


def test_to_numpy_returns_host_values(xp):
    host = to_numpy(xp.arange(4))
    assert isinstance(host, np.ndarray)
    assert host.tolist() == [0, 1, 2, 3]


def test_to_numpy_does_not_copy_a_host_array():
    a = np.arange(4)
    assert to_numpy(a) is a


def test_unknown_backend_is_refused_by_name():
    with pytest.raises(ValueError, match="got 'torch'"):
        get_array_module("torch")


def test_cupy_without_cupy_says_what_to_install(monkeypatch):
    monkeypatch.setattr("operators.arrays.usable_cupy", lambda: None)
    with pytest.raises(ValueError, match="gpu-cuda12"):
        get_array_module("cupy")
    assert get_array_module("auto") is np


def test_fft2_is_unitary_and_stays_in_single_precision(xp):
    rng = np.random.default_rng(0)
    x = xp.asarray(rng.normal(size=(3, 8, 10)) + 1j * rng.normal(size=(3, 8, 10))).astype(np.complex64)
    X = fft2(x)
    assert X.dtype == np.complex64
    np.testing.assert_allclose(to_numpy(abs2(X).sum()), to_numpy(abs2(x).sum()), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(ifft2(X)), to_numpy(x), atol=1e-5)
    np.testing.assert_allclose(to_numpy(X), np.fft.fft2(to_numpy(x), norm="ortho"), atol=1e-5)


@pytest.mark.parametrize("n", [7, 8])
def test_corner_origin_moves_the_centre_pixel_to_the_corner_and_back(xp, n):
    frames = xp.zeros((2, n, n))
    frames[:, n // 2, n // 2] = 1
    patterns = corner_origin(frames)
    assert float(patterns[:, 0, 0].sum()) == 2
    assert bool((centre_origin(patterns) == frames).all())


def test_strict_arrays_refuse_what_cupy_refuses():
    with strict_cupy() as cupy:
        on_device, on_host = cupy.asarray([1.0, 2.0]), np.ones(2)
        assert array_module(on_device) is cupy
        for mix in (lambda: on_device + on_host, lambda: np.asarray(on_device), lambda: cupy.sqrt(on_host)):
            with pytest.raises(TypeError, match=r"Unsupported type|Implicit conversion"):
                mix()
        np.testing.assert_array_equal(to_numpy(2 * on_device[cupy.asarray([1])]), [4.0])
        assert not isinstance(on_device.sum(), np.generic)
