"""The benchmark `detectors` in its short form, and that its baseline does the same work."""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.detectors import ROWS, TARGETS, frames, rehearse


@pytest.mark.parametrize("name", ROWS)
def test_product_and_bare_libraries_decode_the_same_frames(tmp_path: Path, name: str) -> None:
    pair, last = ROWS[name](tmp_path), frames()[-1]
    for decode in (pair.product, pair.bare):
        decoded = decode()
        np.testing.assert_array_equal(decoded, last)
        decoded[...] = 0


def test_every_kind_has_its_figures(tmp_path: Path) -> None:
    figures = {name: value for part in rehearse(tmp_path) for name, value in part.items()}
    assert TARGETS.keys() <= figures.keys()
    assert all(figures[name] > 0 for name in TARGETS)
