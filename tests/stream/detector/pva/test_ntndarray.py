"""An NTNDArray is understood as areaDetector means it, and whatever else comes is refused in words."""

import random
from typing import Any

import numpy as np
import pytest
from p4p import Value
from p4p.nt import NTNDArray, NTScalar

from stream.detector.compression import compress
from stream.detector.protocol import DetectorMessageError
from stream.detector.pva.ntndarray import CODECS, Exposure, decode_array, encode_array

TYPE = NTNDArray().type
STAMP_S = 1_780_000_000.25
FRAME = np.random.default_rng(1).poisson(3.0, (24, 40)).astype("<u2")


def array(frame: np.ndarray = FRAME, codec: str = "", **changes: Any) -> Value:
    return Value(TYPE, encode_array(frame, 7, STAMP_S, codec) | changes)


def decoded(value: Any) -> Exposure:
    exposure = decode_array(value)
    assert exposure is not None
    return exposure


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["|i1", "<i2", "<i4", "|u1", "<u2", "<u4"])
def test_a_frame_comes_as_it_was_sent(codec: str, dtype: str) -> None:
    info = np.iinfo(dtype)
    frame = np.random.default_rng(2).integers(info.min, info.max, (13, 31), dtype=dtype, endpoint=True)
    exposure = decoded(array(frame, codec))
    assert (exposure.number, exposure.stamp_s) == (7, STAMP_S)
    result = exposure.frame.decode()
    assert result.dtype == frame.dtype
    assert np.array_equal(result, frame)


def test_x_is_the_axis_of_neighbouring_pixels() -> None:
    assert [axis["size"] for axis in array()["dimension"]] == [40, 24]
    assert decoded(array()).frame.shape == (24, 40)


@pytest.mark.parametrize("codec", ["bslz4", "lz4"])
def test_data_with_the_header_of_hdf5_are_understood_as_well(codec: str) -> None:
    data = np.frombuffer(compress(FRAME, codec), np.uint8)
    value = array(codec=codec, value=("ubyteValue", data), compressedSize=len(data))
    assert np.array_equal(decoded(value).frame.decode(), FRAME)


def test_a_block_of_lz4_as_large_as_the_frame_is_unpacked() -> None:
    rng, frame = np.random.default_rng(3), np.zeros((16, 16), "<u2")
    while True:  # compressed by as many bytes as its lengths take
        frame[:] = rng.integers(0, 65536, frame.shape)
        for n in range(64):
            frame[-1, : n // 4] = 0
            value = array(frame, "lz4")
            if value["compressedSize"] == frame.nbytes:
                assert np.array_equal(decoded(value).frame.decode(), frame)
                return


def test_a_pv_that_has_no_image_yet_says_nothing() -> None:
    assert decode_array(Value(TYPE, {})) is None


def test_a_driver_without_a_clock_tells_no_time() -> None:
    stamp = {"secondsPastEpoch": 631_152_000, "nanoseconds": 0}
    assert decoded(array(dataTimeStamp=stamp)).stamp_s == 0.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (array(codec="bslz4", **{"codec.name": "jpeg"}), "compressed by 'jpeg', and it loses counts"),
        (array(codec="bslz4", **{"codec.name": "zfp"}), "compressed by 'zfp', and it is not known"),
        (array(codec="lz4", **{"codec.parameters": 9}), "pixels of type float32"),
        (array(codec="lz4", **{"codec.parameters": None}), "pixels of type None"),
        (array(value=("floatValue", np.zeros(960, "f4"))), "pixels of type float32: wanted counts"),
        (array(dimension=[{"size": n} for n in (3, 40, 24)]), "wanted two axes"),
        (array(dimension=[{"size": 960}]), "wanted two axes"),
        (array(dimension=[{"size": -1}, {"size": 24}]), "pixels at most"),
        (array(dimension=[{"size": 1 << 30}, {"size": 1 << 30}]), "pixels at most"),
        (Value(NTScalar.buildType("d"), {"value": 1.0}), "NTScalar:1.0' is no NTNDArray"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(value: Value, words: str) -> None:
    with pytest.raises(DetectorMessageError, match=words):
        decode_array(value)


def test_colours_are_refused_by_name() -> None:
    colours = array(
        dimension=[{"size": n} for n in (3, 40, 24)], attribute=[{"name": "ColorMode", "value": 2}]
    )
    with pytest.raises(DetectorMessageError, match="ColorMode RGB1"):
        decode_array(colours)


def test_an_axis_of_one_is_no_colour() -> None:
    assert decoded(array(dimension=[{"size": n} for n in (40, 24, 1)])).frame.shape == (24, 40)


def mutated(value: Value, rng: random.Random) -> Value:
    """One field, or some bytes of the pixels, are what they should not be."""
    number = rng.choice([-1, 0, 1, 3, 255, 1 << 16, (1 << 31) - 1])
    field = rng.choice(["pixels", "codec.name", "codec.parameters", "dimension", "value", "number"])
    if field == "pixels":
        pixels = value["value"].copy()
        at = rng.randrange(len(pixels))
        pixels[at : at + rng.choice([1, 4, 99])] = number & 0xFF
        value["value"] = pixels[: rng.choice([len(pixels), at])]
    elif field == "codec.name":
        value[field] = rng.choice(["", "lz4", "bslz4", "blosc", "jpeg", "zstd", "\x1b[2J"])
    elif field == "codec.parameters":
        value[field] = rng.choice([None, number, "six", 2.5, ["a", "b"]])
    elif field == "dimension":
        value[field] = [{"size": rng.choice([number, 24, 40, 12])} for _ in range(rng.randrange(4))]
    elif field == "value":
        dtype, name = rng.choice([("f8", "doubleValue"), ("u1", "ubyteValue"), ("i4", "intValue")])
        value[field] = name, np.zeros(rng.choice([0, 1, 960, 1920]), dtype)
    else:
        value["uniqueId"] = number if number < 1 << 31 else 0
    return value


def decode_mutated(n_values: int, seed: int) -> tuple[int, int]:
    """Returns how many were refused in words and how many were decoded; anything else is raised."""
    rng, n_refused, n_decoded = random.Random(seed), 0, 0
    sent = [encode_array(FRAME, 7, STAMP_S, codec) for codec in CODECS]
    for k in range(n_values):
        value = mutated(Value(TYPE, sent[k % len(sent)]), rng)
        try:
            exposure = decode_array(value)
            if exposure is not None:
                exposure.frame.decode()
            n_decoded += 1
        except DetectorMessageError as error:
            assert str(error).isprintable()
            n_refused += 1
    return n_refused, n_decoded


def test_mutated_arrays_are_decoded_or_refused_and_nothing_else() -> None:
    n_refused, n_decoded = decode_mutated(20_000, seed=0)
    assert min(n_refused, n_decoded) > 100
