"""Every operator is tested on every backend: ask for `xp`."""

from collections.abc import Iterator
from typing import Any

import pytest

from operators.arrays import get_array_module


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.cuda)])
def xp(request: pytest.FixtureRequest) -> Iterator[Any]:
    try:
        yield get_array_module(request.param)
    except ValueError as unusable:
        pytest.skip(str(unusable))
