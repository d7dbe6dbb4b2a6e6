"""Compressed frames come back unchanged, and damaged ones are refused without harm."""

import io
from typing import get_args

import h5py
import hdf5plugin
import numpy as np
import pytest

from stream.detector import compression
from stream.detector.compression import (
    Algorithm,
    CompressionError,
    LibraryBitshuffle,
    NumpyBitshuffle,
    bitshuffle,
)

SHAPES = [(0,), (3,), (8,), (7, 5), (64, 64), (1, 4097), (257, 33)]


def counts(shape: tuple[int, ...], dtype: str, mean: float = 3.0) -> np.ndarray:
    return np.random.default_rng(1).poisson(mean, shape).astype(dtype)


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<u8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_frames_come_back_unchanged(shape: tuple[int, ...], dtype: str, algorithm: str) -> None:
    frame = counts(shape, dtype)
    out = np.full_like(frame, 7)
    compression.decompress_into(out, compression.compress(frame, algorithm), algorithm, frame.itemsize)
    np.testing.assert_array_equal(out, frame)


def test_noise_that_does_not_shrink_is_stored_as_it_is() -> None:
    noise = np.random.default_rng(2).integers(0, 256, 5000, dtype=np.uint8)
    encoded = compression.compress(noise, "lz4")
    out = np.empty_like(noise)
    compression.decompress_into(out, encoded, "lz4")
    np.testing.assert_array_equal(out, noise)
    assert len(encoded) == noise.size + 16


def test_the_library_is_used_where_it_works() -> None:
    assert isinstance(bitshuffle(), LibraryBitshuffle)


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4"])
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_and_library_read_each_other(shape: tuple[int, ...], dtype: str) -> None:
    frame = counts(shape, dtype)
    both = [bitshuffle(), NumpyBitshuffle()]
    for writer, reader in [both, both[::-1]]:
        out = np.full_like(frame, 7)
        encoded = writer.compress(np.ascontiguousarray(frame), 1024)
        reader.decode(out.reshape(-1).view(np.uint8), encoded, frame.itemsize)
        np.testing.assert_array_equal(out, frame)


def test_a_library_that_decodes_wrongly_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LibraryBitshuffle, "decode", lambda *_: None)
    bitshuffle.cache_clear()
    try:
        assert isinstance(bitshuffle(), NumpyBitshuffle)
    finally:
        bitshuffle.cache_clear()
    assert "decodes a known block wrongly" in caplog.text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "header"),
        (b"\0" * 11, "header"),
        (b"\0" * 12, "0 bytes, the frame has 128"),
        ((128).to_bytes(8, "big") + (0).to_bytes(4, "big"), "a block has 0 bytes"),
        ((128).to_bytes(8, "big") + (7).to_bytes(4, "big"), "no multiple"),
        ((128).to_bytes(8, "big") + (64).to_bytes(4, "big"), "within their blocks"),
        ((128).to_bytes(8, "big") + (64).to_bytes(4, "big") + b"\xff" * 4, "within their blocks"),
        ((128).to_bytes(8, "big") + (128).to_bytes(4, "big") + b"\xff" * 4, "have 16 bytes"),
        ((128).to_bytes(8, "big") + (128).to_bytes(4, "big") + b"\0\0\0\1\0", "damaged"),
    ],
)
def test_damage_is_named(data: bytes, reason: str) -> None:
    for decoder in (bitshuffle(), NumpyBitshuffle()):
        with pytest.raises(CompressionError, match=reason):
            decoder.decode(np.empty(128, np.uint8), data, 2)


def test_a_buffer_of_another_size_is_refused_before_it_is_touched() -> None:
    encoded = compression.compress(counts((16, 16), "<u2"), "bslz4")
    out = np.full((16, 15), 9, "<u2")
    with pytest.raises(CompressionError, match="hold 512 bytes, the frame has 480"):
        compression.decompress_into(out, encoded, "bslz4", 2)
    assert (out == 9).all()
    with pytest.raises(ValueError, match="C-contiguous"):
        compression.decompress_into(np.empty((16, 32), "<u2")[:, ::2], encoded, "bslz4", 2)


@pytest.mark.parametrize("item_size", [0, 3, -1, 2**40])
def test_absurd_element_sizes_are_refused(item_size: int) -> None:
    with pytest.raises(CompressionError, match="wanted one of"):
        compression.decompress_into(np.empty(8, "<u2"), b"", "bslz4", item_size)


def test_unknown_algorithms_are_refused() -> None:
    for call in (compression.compress, lambda array, name: compression.decompress_into(array, b"", name)):
        with pytest.raises(CompressionError, match=r"'blosc': wanted one of \('bslz4', 'bszstd'"):
            call(np.zeros(8, "<u2"), "blosc")


def test_zstandard_without_the_library_is_refused_by_name() -> None:
    encoded = compression.compress(np.zeros(8, "<u2"), "bszstd")
    with pytest.raises(CompressionError, match="bszstd needs the libh5bshuf of hdf5plugin"):
        NumpyBitshuffle().decode(np.zeros(16, np.uint8), encoded, 2, "bszstd")


def test_zstandard_of_a_library_that_hides_it_is_decoded_by_bitshuffle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame, out = counts((257, 33), "<u4"), np.zeros((257, 33), "<u4")
    encoded = compression.compress(frame, "bszstd")

    def hidden(_: object) -> None:
        raise AttributeError("ZSTD_createDCtx")

    monkeypatch.setattr(compression, "_Zstd", hidden)
    bitshuffle.cache_clear()
    try:
        compression.decompress_into(out, encoded, "bszstd", 4)
    finally:
        bitshuffle.cache_clear()
    np.testing.assert_array_equal(out, frame)


@pytest.mark.parametrize("name", ["lz4", "zstd"])
def test_chunks_of_hdf5_files_are_the_same(name: str) -> None:
    frame = counts((64, 50), "<u4")
    with h5py.File(io.BytesIO(), "w") as file:
        filtered = hdf5plugin.Bitshuffle(cname=name)
        data = file.create_dataset("frames", data=frame, chunks=frame.shape, compression=filtered)
        _, chunk = data.id.read_direct_chunk((0, 0))
        out = np.empty_like(frame)
        compression.decompress_into(out, chunk, f"bs{name}", 4)
        np.testing.assert_array_equal(out, frame)
        data.id.write_direct_chunk((0, 0), compression.compress(frame + 1, f"bs{name}"))
        np.testing.assert_array_equal(data[...], frame + 1)


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_ten_thousand_mutations_never_write_outside_the_frame(algorithm: str) -> None:
    rng = np.random.default_rng(3)
    frame = counts((24, 20), "<u2")
    encoded = np.frombuffer(compression.compress(frame, algorithm, 256), np.uint8)
    guarded = np.full(3 * frame.size, 0xA5A5, "<u2")
    out = guarded[frame.size : 2 * frame.size].reshape(frame.shape)
    n_refused = 0
    for _ in range(10_000):
        damaged = encoded.copy()[: rng.integers(len(encoded) // 2, len(encoded) + 1)]
        where = rng.integers(0, len(damaged), rng.integers(1, 5))
        damaged[where] = rng.integers(0, 256, where.size)
        try:
            compression.decompress_into(out, damaged.tobytes(), algorithm, int(rng.choice([1, 2, 4])))
        except CompressionError:
            n_refused += 1
    assert n_refused > 5_000
    assert (guarded[: frame.size] == 0xA5A5).all()
    assert (guarded[2 * frame.size :] == 0xA5A5).all()
