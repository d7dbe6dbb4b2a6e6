"""What fast and many beamlines would need: hosts, links, GPUs, disks; on paper, checked by a simulation.

Every cost of a frame is read from `docs/measured`, where it has its machine and date, and scaled to larger
frames by their pixels, the transforms of refinement by n^2 log n. That is too much for what a frame costs
whatever its size. A margin of two stands beside it, by which absolute times drift there. Then the
frames of ten seconds pass stations of these sizes in a simulation: whether the image follows, how far it is
behind, and that it does not follow where a stage has a server less than its work takes.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stream.detector.compression import compress
from tests.benchmarks.capacity.queueing import Station, passed_s
from tests.benchmarks.figures import Benchmark, Figures

DOCS = Path(__file__).resolve().parents[3] / "docs" / "measured"
MEASURED_PX = 128  # side of the frames of all costs below

# What the machines are taken to be, and how they are used.
MOST_LOAD = 0.7  # of a server: above, a line forms at every hiccup
MARGINS = {"as measured": 1.0, "with a margin": 2.0}
CORES_PER_HOST = 64
LINK_GBIT_S, MOST_OF_A_LINK = 100.0, 0.8
DISK_GB_S = 6.0  # what one host writes and goes on writing, several NVMe drives
EPOCHS = 10.0  # refinement visits each frame so often while the scan runs
DUTY = 0.3  # share of the time in which a beamline takes frames
SHORTAGE = 1e-3  # share of the time in which a pool may be too small
PHOTONS_PER_PIXEL = 3.0  # as in the benchmark of ingest
SPREAD = 0.5  # of the time of a batch
IMAGE_EVERY_S = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A figure on a page of `docs/measured`.

    Attributes
    ----------
    page : str
    row : str
        Regular expression of the row up to the figure, which is its one group.
    """

    page: str
    row: str

    def read(self) -> float:
        """Return the figure as it stands on the page."""
        text = (DOCS / self.page).read_text(encoding="utf-8")
        found = re.search(self.row, text)
        if found is None:
            raise ValueError(f"docs/measured/{self.page} has no figure after {self.row!r}: name it anew here")
        return float(found[1].replace(",", "").replace(" million", "e6"))


_ROW = r"processor time for 1000 frames: detector, subscriber, positions, reading and storing[^|]*\| "
SOURCES = {
    "subscriber_ms": Source(page="live.md", row=_ROW + r"[\d.]+, ([\d.]+)"),
    "positions_ms": Source(page="live.md", row=_ROW + r"[\d.]+, [\d.]+, ([\d.]+)"),
    "storing_ms": Source(page="live.md", row=_ROW + r"[\d.]+, [\d.]+, [\d.]+, ([\d.]+) s"),
    "stitcher_ms": Source(page="live.md", row=r"of the stitcher \(before 2.5\)[^|]*\| ([\d.]+);"),
    "network_hz": Source(page="gpu.md", row=r"network, patterns a second: alone \| ([\d,]+)"),
    "stage_hz": Source(page="gpu.md", row=r"through the stage, from recorded frames[^|]*\| \**([\d,]+)"),
    "updates_hz": Source(page="gpu.md", row=r"fused kernel, batches of 528 \| ([\d.]+ million)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one frame costs, at some size.

    Attributes
    ----------
    subscriber_s, positions_s, storing_s, stitcher_s : float
        Seconds of one core.
    network_s, stage_s, update_s : float
        Seconds of a GPU: the network alone, with the stage around it, one update of refinement.
    sent_bytes, recorded_bytes, patch_bytes : float
        Over the link, compressed; of the frame as it is recorded; of patch and sigma.
    """

    subscriber_s: float
    positions_s: float
    storing_s: float
    stitcher_s: float
    network_s: float
    stage_s: float
    update_s: float
    sent_bytes: float
    recorded_bytes: float
    patch_bytes: float


def costs(n_pixels: int) -> Costs:
    """Return what a frame of n x n pixels costs, from what one of 128 x 128 did."""
    found = {name: source.read() for name, source in SOURCES.items()}
    pixels = (n_pixels / MEASURED_PX) ** 2
    transforms = pixels * math.log(n_pixels) / math.log(MEASURED_PX)
    return Costs(
        subscriber_s=found["subscriber_ms"] * 1e-3 * pixels,
        positions_s=found["positions_ms"] * 1e-3,
        storing_s=found["storing_ms"] * 1e-3 * pixels,
        stitcher_s=found["stitcher_ms"] * 1e-3 * pixels,
        network_s=pixels / found["network_hz"],
        stage_s=pixels / found["stage_hz"],
        update_s=transforms / found["updates_hz"],
        sent_bytes=sent_bytes(n_pixels),
        recorded_bytes=2.0 * n_pixels**2,
        patch_bytes=10.0 * n_pixels**2,
    )


def sent_bytes(n_pixels: int) -> float:
    """Return the bytes of a frame on the wire: uint16, bslz4, a bright disc with weak wings."""
    rng = np.random.default_rng(0)
    ky, kx = np.meshgrid(*(np.arange(n_pixels) - n_pixels / 2,) * 2, indexing="ij")
    mean = np.where(np.hypot(ky, kx) < n_pixels / 8, 1.0, 2e-3)
    mean += 0.1 * np.exp(-np.hypot(ky, kx) / (0.08 * n_pixels))
    frame = rng.poisson(mean * PHOTONS_PER_PIXEL * n_pixels**2 / mean.sum()).astype("<u2")
    return float(len(compress(frame, "bslz4")))


def needs(rate_hz: float, cost: Costs, margin: float = 1.0) -> dict[str, float]:
    """Return what one beamline needs that takes `rate_hz` frames a second, by name."""

    def servers(seconds: float) -> int:
        return max(1, math.ceil(rate_hz * seconds * margin / MOST_LOAD))

    cores = {
        "subscriber processes": servers(cost.subscriber_s),
        "cores beside the network": servers(cost.storing_s),
        "stitchers": servers(cost.stitcher_s),
    }
    gb_s, patch_gb_s = rate_hz * cost.recorded_bytes * 1e-9, rate_hz * cost.patch_bytes * 1e-9
    by_cores = math.ceil((sum(cores.values()) + servers(cost.positions_s)) / CORES_PER_HOST)
    by_disk = math.ceil((gb_s + patch_gb_s) / DISK_GB_S)
    return cores | {
        "GPUs, network": servers(cost.network_s),
        "GPUs, network in its stage": servers(cost.stage_s),
        "GPUs, refinement": servers(cost.update_s * EPOCHS),
        "link, compressed, Gbit/s": rate_hz * cost.sent_bytes * 8e-9,
        "link, not compressed, Gbit/s": 8 * gb_s,
        "links of 100 Gbit/s, not compressed": math.ceil(8 * gb_s / (LINK_GBIT_S * MOST_OF_A_LINK)),
        "frames to disk, GB/s": gb_s,
        "patches to disk, GB/s": patch_gb_s,
        "hosts, for their cores": by_cores,
        "hosts, for their disks": by_disk,
        "hosts": max(by_cores, by_disk),
        "frames a day, TB": gb_s * 86.4 * DUTY,
    }


def facility(n_beamlines: int, one: dict[str, float]) -> dict[str, float]:
    """Return what many such beamlines need, of GPUs also those of a pool that all of them share."""
    all_of_it = {name: n_beamlines * value for name, value in one.items()}
    gpus = one["GPUs, network in its stage"] + one["GPUs, refinement"]
    at_once = busy_at_once(n_beamlines)
    return all_of_it | {
        "beamlines at once": at_once,
        "GPUs, one set each": n_beamlines * gpus,
        "GPUs, pooled": at_once * gpus,
    }


def busy_at_once(n_beamlines: int) -> int:
    """Return how many beamlines take frames at once, but for a share `SHORTAGE` of the time."""
    left, n = 1.0, -1
    while left > SHORTAGE:
        n += 1
        left -= math.comb(n_beamlines, n) * DUTY**n * (1 - DUTY) ** (n_beamlines - n)
    return n


def stations(cost: Costs, need: dict[str, float], margin: float = 1.0) -> list[Station]:
    """Return the way of a frame to the image, with so many servers as `needs` has."""
    return [
        Station(
            name="subscriber",
            servers=int(need["subscriber processes"]),
            service_s=cost.subscriber_s * margin,
            spread=SPREAD,
        ),
        Station(
            name="network",
            servers=int(need["GPUs, network in its stage"]),
            service_s=cost.stage_s * margin,
            spread=SPREAD,
            batch=32,
            deadline_s=0.02,
        ),
        Station(
            name="stitcher",
            servers=int(need["stitchers"]),
            service_s=cost.stitcher_s * margin,
            spread=SPREAD,
            batch=8,
            deadline_s=IMAGE_EVERY_S,
        ),
    ]


def simulated(rate_hz: float, way: list[Station], seconds: float = 10.0, seed: int = 0) -> dict[str, float]:
    """Return the time to image, ms, and what is still on its way one second after the last frame."""
    rng = np.random.default_rng(seed)
    comes_s = np.arange(1, round(seconds * rate_hz) + 1) / rate_hz
    shown_s = passed_s(comes_s, way, rng) + rng.uniform(0, IMAGE_EVERY_S, len(comes_s))
    p50, p99 = np.percentile(shown_s - comes_s, (50, 99)) * 1e3
    return {
        "time to image, ms, median": float(p50),
        "time to image, ms, 99 %": float(p99),
        "behind 1 s after the last": float((shown_s > comes_s[-1] + 1.0).sum()),
    }


def overloaded(rate_hz: float, way: list[Station]) -> list[Station]:
    """Return the same with a fifth fewer stitchers than their work takes."""
    *before, stitcher = way
    n_servers = max(1, math.floor(0.8 * rate_hz * stitcher.service_s))
    return [*before, replace(stitcher, servers=n_servers)]


RATE_HZ, N_PIXELS, N_BEAMLINES = 10_000.0, 512, 100
ONE = f"one beamline, {RATE_HZ / 1e3:.0f} kHz of {N_PIXELS} x {N_PIXELS}"
MANY = f"{N_BEAMLINES} such"


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the tables: what is needed, and what the simulation makes of it."""
    cost = costs(N_PIXELS)
    need = {name: needs(RATE_HZ, cost, margin) for name, margin in MARGINS.items()}
    columns = {f"{ONE}, {name}": one for name, one in need.items()}
    columns |= {f"{MANY}, {name}": facility(N_BEAMLINES, one) for name, one in need.items()}
    rows = dict.fromkeys(name for column in columns.values() for name in column)
    yield {"needs": {row: {name: column.get(row, "") for name, column in columns.items()} for row in rows}}
    way = {name: stations(cost, need[name], margin) for name, margin in MARGINS.items()}
    ways = {f"{ONE}, {name}": of for name, of in way.items()}
    ways[f"{ONE}, too few stitchers"] = overloaded(RATE_HZ, way["as measured"])
    yield {"simulated": {name: simulated(RATE_HZ, of) for name, of in ways.items()}}


BENCHMARK = Benchmark(
    measure=measure,
    columns={
        "needs": tuple(f"{which}, {margin}" for which in (ONE, MANY) for margin in MARGINS),
        "simulated": ("time to image, ms, median", "time to image, ms, 99 %", "behind 1 s after the last"),
    },
)
