"""How fast messages of each kind of detector become frames, as a share of what the bare libraries reach.

The baseline takes the same messages, reads their headers with the library that everybody has for it (cbor2,
json), believes all they say, and calls the library of the compression, nothing else. Both fill one buffer,
frame after frame, fifty a turn; the median of the ratios of neighbouring turns counts, in processor time, so
that a busy computer disturbs both alike.
"""

import ctypes
import json
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import h5py
import hdf5plugin
import numpy as np
from p4p import Value
from p4p.nt import NTNDArray

from stream.detector.compression import BLOCK_BYTES
from stream.detector.config import DetectorConfig
from stream.detector.dialects import DIALECTS, ENCODERS
from stream.detector.files.feed import FilesFeed
from stream.detector.files.writers import Hdf5Sender
from stream.detector.protocol import ImageMessage
from stream.detector.pva.ntndarray import decode_array, encode_array
from stream.detector.simulator import Compression, ReplayConfig, series_messages
from tests.benchmarks.figures import Benchmark, Figures

N_PIXELS, N_FRAMES, N_TURNS = 256, 50, 40
PHOTONS = 2e5
_HEADER = struct.Struct(">QI")


class Pair(NamedTuple):
    """What decodes the frames of one kind of detector once, in the product and with bare libraries.

    Attributes
    ----------
    product, bare : callable
        Each goes through the same `n_frames` and returns the last, (row, column).
    words : str
        What is sent.
    """

    product: Callable[[], np.ndarray]
    bare: Callable[[], np.ndarray]
    n_frames: int
    words: str


def frames() -> np.ndarray:
    """The frames that every kind sends, (frame, row, column) uint16: a bright disc with weak wings."""
    rng, shape = np.random.default_rng(0), (N_PIXELS, N_PIXELS)
    ky, kx = np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij")
    mean = np.where(np.hypot(ky, kx) < N_PIXELS / 8, 1.0, 2e-3) + 0.1 * np.exp(-np.hypot(ky, kx) / 20)
    return rng.poisson(mean * PHOTONS / mean.sum(), (N_FRAMES, *shape)).astype("<u2")


def v2(folder: Path) -> Pair:
    """DECTRIS Stream V2, bslz4."""
    return _by_socket("dectris-v2", "bslz4", _bare_cbor)


def v1(folder: Path) -> Pair:
    """DECTRIS Stream V1, bslz4."""
    return _by_socket("dectris-v1", "bslz4", _bare_v1)


def jungfraujoch(folder: Path) -> Pair:
    """Jungfraujoch, bszstd."""
    return _by_socket("jungfraujoch", "bszstd", _bare_cbor)


def ntndarray(folder: Path) -> Pair:
    """areaDetector's NTNDArray out of p4p, bslz4."""
    values = [Value(NTNDArray().type, encode_array(frame, 1, 1.0)) for frame in frames()]
    out = np.empty((N_PIXELS, N_PIXELS), "<u2")

    def product() -> np.ndarray:
        for value in values:
            exposure = decode_array(value)
            assert exposure is not None
            exposure.frame.decode_into(out)
        return out

    def with_libraries() -> np.ndarray:
        for value in values:
            columns, rows = (axis["size"] for axis in value["dimension"])
            item_size = {5: 1, 6: 2, 7: 4}[value["codec.parameters"]]
            sizes = rows * columns, item_size, BLOCK_BYTES // item_size
            if _BSHUF["lz4"](value["value"].tobytes(), out.ctypes.data, *sizes) < 0:
                raise ValueError("damaged")
        return out

    return Pair(product, with_libraries, len(values), "NTNDArray bslz4")


def hdf5(folder: Path) -> Pair:
    """HDF5 of one frame a chunk, bslz4: a feed against the library that reads such chunks."""
    path, n_frames = folder / "frames.h5", 40 * N_FRAMES
    sender = Hdf5Sender(folder)
    for _, message in series_messages(np.tile(frames(), (40, 1, 1)), ReplayConfig(series_uid="frames")):
        sender.send(message, 0.0)
    config = DetectorConfig(format="files", path=path, silence_s=1.0)
    out = np.empty((N_PIXELS, N_PIXELS), "<u2")

    def product() -> np.ndarray:
        feed, n_read = FilesFeed(config), 0
        while n_read < n_frames:
            for message in feed.receive():
                if isinstance(message, ImageMessage):
                    message.frame().decode_into(out)
                    n_read += 1
        feed.close()
        return out

    def with_libraries() -> np.ndarray:
        with h5py.File(path, "r") as file:
            dataset = file["entry/data/data"].id
            for number in range(n_frames):
                _DECOMPRESS["bslz4"](dataset.read_direct_chunk((number, 0, 0))[1], out, 2)
        return out

    return Pair(product, with_libraries, n_frames, "HDF5 bslz4")


ROWS: dict[str, Callable[[Path], Pair]] = {
    "v2": v2,
    "v1": v1,
    "jungfraujoch": jungfraujoch,
    "ntndarray": ntndarray,
    "hdf5": hdf5,
}
"""What is measured, by the name of its figures; the folder is for what it writes."""


def _by_socket(
    dialect: str, compression: Compression, bare: Callable[[list[bytes], np.ndarray], None]
) -> Pair:
    config = ReplayConfig(series_uid="a", compression=compression, rate_hz=1000.0)
    said = [message for _, message in series_messages(frames(), config) if isinstance(message, ImageMessage)]
    messages = [ENCODERS[dialect](message)[0] for message in said]
    decoder, out = DIALECTS[dialect](), np.empty((N_PIXELS, N_PIXELS), "<u2")

    def product() -> np.ndarray:
        for parts in messages:
            message = decoder.decode(parts)
            assert isinstance(message, ImageMessage)
            message.frame().decode_into(out)
        return out

    def with_libraries() -> np.ndarray:
        for parts in messages:
            bare(parts, out)
        return out

    return Pair(product, with_libraries, len(messages), f"{dialect} {compression}")


def _bare_cbor(parts: list[bytes], out: np.ndarray) -> None:
    (frame,) = cbor2.loads(parts[0])["data"].values()
    algorithm, item_size, data = frame.value[1].value.value
    _DECOMPRESS[algorithm](data, out, item_size)


def _bare_v1(parts: list[bytes], out: np.ndarray) -> None:
    json.loads(parts[0])
    pixels = json.loads(parts[1])
    json.loads(parts[3])
    _DECOMPRESS["bslz4"](parts[2], out, int(pixels["encoding"][2:4]) // 8)


def _function(name: str) -> Any:
    """Return bitshuffle's own function."""
    (path,) = Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf.*")
    function: Any = getattr(ctypes.CDLL(str(path)), f"bshuf_decompress_{name}")
    function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    function.restype = ctypes.c_int64
    return function


_BSHUF = {name: _function(name) for name in ("lz4", "zstd")}


def _library(name: str) -> Callable[[bytes, np.ndarray, int], None]:
    """Return the same, called with what the header of the data says."""
    function = _BSHUF[name]

    def decompress(data: bytes, out: np.ndarray, item_size: int) -> None:
        n_bytes, block_bytes = _HEADER.unpack_from(data)
        body = data[_HEADER.size :]
        if function(body, out.ctypes.data, n_bytes // item_size, item_size, block_bytes // item_size) < 0:
            raise ValueError("damaged")

    return decompress


_DECOMPRESS = {"bslz4": _library("lz4"), "bszstd": _library("zstd")}


def measure(folder: Path, n_turns: int = N_TURNS) -> Iterator[Figures]:
    """Yield the figures of each kind of detector."""
    words = []
    for name, row in ROWS.items():
        pair = row(folder)
        words.append(pair.words)
        yield _figures(name, pair, n_turns) | {
            "measured_on": {"frames": f"{N_PIXELS}x{N_PIXELS} uint16, {', '.join(words)}", "turns": n_turns}
        }


def rehearse(folder: Path) -> Iterator[Figures]:
    """Yield the same of few turns."""
    return measure(folder, 2)


def _figures(name: str, pair: Pair, n_turns: int) -> Figures:
    pair.product(), pair.bare()  # the first of each pays for caches
    products, bares = [], []
    for _ in range(n_turns):
        products.append(_cpu_s(pair.product))
        bares.append(_cpu_s(pair.bare))
    return {
        f"{name}_ratio": statistics.median(b / p for p, b in zip(products, bares, strict=True)),
        f"{name}_frames_per_s": pair.n_frames / statistics.median(products),
        f"{name}_bare_frames_per_s": pair.n_frames / statistics.median(bares),
    }


def _cpu_s(decode: Callable[[], object]) -> float:
    began = time.process_time()
    decode()
    return time.process_time() - began


TARGETS = {f"{name}_ratio": (">=", 0.8 if name == "hdf5" else 0.9) for name in ROWS}
BENCHMARK = Benchmark(measure=measure, rehearse=rehearse, targets=TARGETS)
