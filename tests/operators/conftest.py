"""Every operator is tested on every backend: ask for `xp`."""

from collections.abc import Iterator
from typing import Any

import pytest

from operators.arrays import get_array_module
from tests.helpers.operators.strict_cupy import strict_cupy


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.cuda)])
def xp(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "strict":
        with strict_cupy() as module:
            yield module
        return
    try:
        yield get_array_module(request.param)
    except ValueError as unusable:
        pytest.skip(str(unusable))
