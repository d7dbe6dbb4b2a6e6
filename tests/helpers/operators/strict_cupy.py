"""NumPy behind CuPy's rules, where there is no GPU: arrays of a device never mix with those of the host.

CuPy refuses a NumPy array (but for scalars and indices) in arithmetic and never becomes one by itself; its
reductions give arrays without axes, not scalars. That, not speed, is what code for both gets wrong.
"""

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import scipy.fft
from numpy.lib.mixins import NDArrayOperatorsMixin

# It imports CuPy at its top: bound to one, it is of no use with another.
_BOUND_TO_CUPY = "operators.engine.cuda.device"


class ndarray(NDArrayOperatorsMixin):  # noqa: N801 -- CuPy's name
    """What would lie on the device."""

    def __init__(self, host: np.ndarray) -> None:
        self.host = host

    def get(self) -> np.ndarray:
        """Return a copy on the host: the one way to it."""
        return self.host.copy()

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use `.get()`.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        result = getattr(ufunc, method)(*_on_host(inputs), **_on_host(kwargs))
        return kwargs["out"][0] if kwargs.get("out") else _on_device(result)

    def __array_function__(self, function: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
        return _on_device(function(*_on_host(args), **_on_host(kwargs)))

    def __getitem__(self, index: Any) -> Any:
        return _on_device(self.host[_as_index(index)])

    def __setitem__(self, index: Any, values: Any) -> None:
        self.host[_as_index(index)] = _on_host(values)

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[Any]:
        return map(_on_device, self.host)

    def __bool__(self) -> bool:
        return bool(self.host)

    def __int__(self) -> int:
        return int(self.host)

    def __index__(self) -> int:
        return self.host.__index__()

    def __float__(self) -> float:
        return float(self.host)

    def __complex__(self) -> complex:
        return complex(self.host)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _exposed(getattr(self.host, name))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "host":
            super().__setattr__(name, value)
        else:
            setattr(self.host, name, _on_host(value))  # real and imag


class _Module(types.ModuleType):
    """A module of NumPy whose functions take and give arrays of the device."""

    def __init__(self, name: str, host: types.ModuleType) -> None:
        super().__init__(name)
        self._host = host

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._host, name)
        if isinstance(found, types.ModuleType):
            return _Module(f"{self.__name__}.{name}", found)
        return _Ufunc(found) if isinstance(found, np.ufunc) else _exposed(found)


class _Ufunc:
    def __init__(self, host: np.ufunc) -> None:
        self._host = host

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._host(*_on_host(args), **_on_host(kwargs))
        return kwargs.get("out", _on_device(result))

    def at(self, array: ndarray, index: Any, values: Any) -> None:
        self._host.at(array.host, _as_index(index), _on_host(values))


@contextmanager
def strict_cupy() -> Iterator[Any]:
    """Yield a module that stands for CuPy, as `operators` find it when they import it."""
    cupy: Any = _Module("cupy", np)
    cupy.ndarray = ndarray
    for name in ("array", "ascontiguousarray"):  # these and `asarray` alone bring values to the device
        setattr(cupy, name, _uploading(getattr(np, name)))
    cupy.asarray = lambda values, *args, **kwargs: (
        values
        if isinstance(values, ndarray) and not args and not kwargs
        else cupy.array(values, *args, **kwargs)
    )
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: 1))
    transforms = _Module("cupyx.scipy.fft", scipy.fft)
    names = {"cupy": cupy, "cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy")}
    # Each by itself: what is imported meanwhile, such as numba, must stay, since it cannot be loaded twice.
    with pytest.MonkeyPatch.context() as modules:
        modules.delitem(sys.modules, _BOUND_TO_CUPY, raising=False)
        for name, module in (names | {"cupyx.scipy.fft": transforms}).items():
            modules.setitem(sys.modules, name, module)
        try:
            yield cupy
        finally:
            sys.modules.pop(_BOUND_TO_CUPY, None)


def _uploading(function: Callable[..., Any]) -> Callable[..., Any]:
    def upload(values: Any, *args: Any, **kwargs: Any) -> ndarray:
        host = values.host if isinstance(values, ndarray) else values
        return ndarray(function(host, *args, **kwargs))

    return upload


def _exposed(found: Any) -> Any:
    if callable(found) and not isinstance(found, type):
        return lambda *args, **kwargs: _on_device(found(*_on_host(args), **_on_host(kwargs)))
    return _on_device(found) if isinstance(found, np.ndarray) else found


def _on_host(values: Any) -> Any:
    if isinstance(values, ndarray):
        return values.host
    if isinstance(values, np.ndarray) and values.ndim:
        raise TypeError(f"Unsupported type {type(values)}: of the host, shape {values.shape}")
    if isinstance(values, list | tuple):
        return type(values)(map(_on_host, values))
    if isinstance(values, dict):
        return {name: _on_host(value) for name, value in values.items()}
    return values


def _on_device(values: Any) -> Any:
    if isinstance(values, np.ndarray | np.generic):
        return ndarray(np.asarray(values))
    return type(values)(map(_on_device, values)) if type(values) in (list, tuple) else values


def _as_index(index: Any) -> Any:
    if isinstance(index, ndarray):
        return index.host
    return tuple(map(_as_index, index)) if isinstance(index, tuple) else index
