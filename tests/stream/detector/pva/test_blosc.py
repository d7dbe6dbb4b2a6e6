"""Frames that areaDetector's codec plugin compressed by blosc come back, damaged ones are refused."""

import random

import numpy as np
import pytest

from stream.detector.compression import CompressionError
from stream.detector.pva.blosc import compress, decompress

FRAME = np.random.default_rng(0).poisson(3.0, (64, 80)).astype("<u2")


@pytest.mark.parametrize("compressor", ["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"])
def test_all_of_its_compressors_are_known(compressor: str) -> None:
    data = compress(FRAME, compressor)
    assert len(data) < FRAME.nbytes
    assert np.array_equal(decompress(data, FRAME.nbytes).view("<u2").reshape(FRAME.shape), FRAME)


def test_a_compressor_that_is_none_is_refused() -> None:
    with pytest.raises(CompressionError, match="cannot be packed by blosc, paper"):
        compress(FRAME, "paper")


def test_another_size_than_the_frame_has_is_refused() -> None:
    with pytest.raises(CompressionError, match="say they hold 10240 bytes, the frame has 10241"):
        decompress(compress(FRAME), FRAME.nbytes + 1)


def test_damage_is_refused_or_changes_pixels_and_nothing_else() -> None:
    data, rng, n_refused = compress(FRAME), random.Random(1), 0
    for _ in range(20_000):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data) if rng.random() < 0.5 else 80)] = rng.randrange(256)
        try:
            decompress(bytes(damaged[: rng.choice([len(data), rng.randrange(len(data))])]), FRAME.nbytes)
        except CompressionError:
            n_refused += 1
    assert n_refused > 1000
