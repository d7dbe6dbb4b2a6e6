"""What frames of an areaDetector over PV Access cost, and the live image as PVs.

`ntndarray_ratio_512` is the time of a program that reads pixels and dimensions of an NTNDArray out of p4p and
has libh5bshuf unpack them, unchecked, over that of the decoder; processor times, the median of repetitions
that alternate. Then frames come at a kilohertz from another process, and what receives them records them as a
run does; the baseline takes the same updates out of p4p and drops them.
"""

import ctypes
import multiprocessing
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hdf5plugin
import numpy as np
from p4p import Value

from launch.pva.images import image_fields
from stream.detector.config import DetectorConfig
from stream.detector.pva.ntndarray import decode_array, encode_array
from stream.detector.pva.sender import PvaSender
from stream.detector.simulator import Replay, ReplayConfig
from stream.stages.ingest.subscriber import Subscriber
from stream.stages.loop import FEW_MESSAGES, GATHER_S
from stream.wire.pva import Monitor, PvServer
from tests.benchmarks.figures import Benchmark, Figures
from tests.helpers.stream.live_images import live_image
from tests.helpers.stream.pva import NDARRAY, own_network

NAME = "BENCHMARK:IMAGE"
RATE_HZ, N_FRAMES, N_PIXELS = 1000.0, 5000, 256
RATIO_PIXELS, N_REPETITIONS, N_DECODED = 512, 15, 100
IMAGE_PIXELS, N_IMAGES = 512, 20
BLOCK_BYTES = 8192  # of bitshuffle, where no header says otherwise
PATIENCE_S = 120.0


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures."""
    yield {"ntndarray_ratio_512": ntndarray_ratio()}
    with own_network():
        for codec in ("", "bslz4"):
            name = f"_{codec}" if codec else ""
            recorded, n_recorded = _from_detector(codec, lambda: _record(folder / "scans"))
            bare, n_bare = _from_detector(codec, _drop)
            yield {
                f"cpu_ms_per_1000{name}": recorded / n_recorded * 1e6,
                f"bare_cpu_ms_per_1000{name}": bare / n_bare * 1e6,
                f"n_lost{name}": N_FRAMES - n_recorded,
            }
    yield {
        "pvs_cpu_ms_per_image": _pvs_ms(),
        "measured_on": {
            "frames": f"{N_FRAMES} of {N_PIXELS}x{N_PIXELS} uint16 at {RATE_HZ:g} Hz",
            "decoded": f"{RATIO_PIXELS}x{RATIO_PIXELS} uint16 bslz4",
            "image": f"{IMAGE_PIXELS}x{IMAGE_PIXELS}, three maps",
        },
    }


def ntndarray_ratio(n_pixels: int = RATIO_PIXELS) -> float:
    """Return the processor time of unpacking alone over that of the decoder, for frames by bslz4."""
    (path,) = Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf.*")
    unpack = ctypes.CDLL(str(path)).bshuf_decompress_lz4
    unpack.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    values = [Value(NDARRAY, encode_array(frame, k, 1.0)) for k, frame in enumerate(_frames(n_pixels, 10))]
    out = np.empty((n_pixels, n_pixels), "<u2")

    def bare(value: Value) -> None:
        columns, rows = (axis["size"] for axis in value["dimension"])
        pixels = value["value"]
        n_items = rows * columns
        unpack(pixels.ctypes.data, out.ctypes.data, n_items, out.itemsize, BLOCK_BYTES // out.itemsize)

    def ours(value: Value) -> None:
        exposure = decode_array(value)
        assert exposure is not None
        exposure.frame.decode_into(out)

    def cpu_s(decode: Callable[[Value], None]) -> float:
        began = time.process_time()
        for k in range(N_DECODED):
            decode(values[k % len(values)])
        return time.process_time() - began

    ratios = [cpu_s(bare) / cpu_s(ours) for _ in range(N_REPETITIONS + 1)]
    return statistics.median(ratios[1:])


def _frames(n_pixels: int, n_frames: int) -> np.ndarray:
    rng, ky_kx = np.random.default_rng(0), np.mgrid[:n_pixels, :n_pixels] - n_pixels / 2
    radius = np.hypot(*ky_kx)
    # A bright disc with weak wings: what a focusing optic leaves on a far-field detector.
    mean = np.where(radius < n_pixels / 8, 40.0, 0.1) + 4.0 * np.exp(-radius / 20)
    return rng.poisson(mean, (n_frames, n_pixels, n_pixels)).astype("<u2")


def _from_detector(codec: str, receive: Callable[[], tuple[float, int]]) -> tuple[float, int]:
    """Return what `receive` does while another process plays a series."""
    sender = multiprocessing.get_context("spawn").Process(target=_play, args=(codec,))
    sender.start()
    try:
        return receive()
    finally:
        sender.join(PATIENCE_S)


def _play(codec: str) -> None:
    frames = _frames(N_PIXELS, 50)
    with Replay(PvaSender(PvServer(), NAME, codec), PATIENCE_S) as replay:
        replay.wait_for_receiver()
        series = (frames[k % len(frames)] for k in range(N_FRAMES))
        replay.play(series, ReplayConfig(rate_hz=RATE_HZ, compression=""), N_FRAMES)


def _record(scans: Path) -> tuple[float, int]:
    """Return processor seconds and frames of a series that is recorded."""
    config = DetectorConfig(format="pva", pv=NAME, silence_s=2.0, queue=N_FRAMES)
    subscriber = Subscriber(config, scans)
    while not subscriber.fetch():
        time.sleep(GATHER_S)
    began, quiet_at = time.process_time(), time.monotonic()
    cpu_s = 0.0
    while time.monotonic() - quiet_at < 1.0:
        n_taken = subscriber.fetch()
        subscriber.idle(time.monotonic())
        if n_taken:
            quiet_at, cpu_s = time.monotonic(), time.process_time() - began
        if n_taken < FEW_MESSAGES:
            time.sleep(GATHER_S)
    subscriber.close()
    shutil.rmtree(scans)
    return cpu_s, subscriber.progress()[1]["recorded"]


def _drop() -> tuple[float, int]:
    """Return the same of updates that are taken and dropped."""
    with Monitor(NAME, N_FRAMES) as monitor:
        while (update := monitor.receive()) is None or update[1]:
            time.sleep(GATHER_S)
        began, quiet_at, cpu_s, n_taken = time.process_time(), time.monotonic(), 0.0, 1
        while time.monotonic() - quiet_at < 1.0:
            while monitor.receive() is not None:
                quiet_at, cpu_s, n_taken = time.monotonic(), time.process_time() - began, n_taken + 1
            time.sleep(GATHER_S)
    return cpu_s, n_taken


def _pvs_ms() -> float:
    """Return processor milliseconds that one version of the image takes as PVs."""
    rng, shape = np.random.default_rng(0), (IMAGE_PIXELS, IMAGE_PIXELS)
    object_ = rng.uniform(0.8, 1.0, shape) * np.exp(1j * rng.uniform(-1, 1, shape))
    with own_network(), PvServer() as served:
        began = time.process_time()
        for version in range(N_IMAGES):
            for name, fields in image_fields(live_image(object_, version=version)):
                served.post_image(f"BENCHMARK:{name}", fields)
        return (time.process_time() - began) / N_IMAGES * 1e3


TARGETS = {"n_lost": ("<=", 0), "n_lost_bslz4": ("<=", 0)}
BENCHMARK = Benchmark(measure=measure, targets=TARGETS)
