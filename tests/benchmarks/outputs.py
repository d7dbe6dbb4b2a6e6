"""What everything that a run gives away at once costs the time to image: store, page with viewers, PVs.

Pairs of simulated scans at 100 Hz, one with nothing beside the image's own door, one with the store, three
viewers of the page that take every image, and the live image as PVs. Which comes first alternates; the
median of the pairs' ratios counts.
"""

import asyncio
import json
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from rich.console import Console

from launch.commands.demo import DemoOptions, demo_config, run_demo
from launch.config.config import Config
from tests.benchmarks.figures import Benchmark, Figures
from tests.helpers.launch.commands import free_address

N_PAIRS, N_FRAMES, RATE_HZ = 5, 625, 100.0
N_VIEWERS = 3
MAPS = "amplitude,phase"
TARGETS = {"p99_ratio": ("<=", 1.2), "frames_lost": ("<=", 0), "frames_pending": ("<=", 0)}
COLUMNS = ("p50_ms_alone", "p99_ms_alone", "p50_ms_with_all", "p99_ms_with_all")


class Viewers:
    """Browsers of the page, as far as the page is concerned; a context manager.

    Attributes
    ----------
    n_images : int
        That they have taken, together.
    """

    def __init__(self, port: int, n_viewers: int) -> None:
        self._url, self._n_viewers = f"ws://127.0.0.1:{port}/live", n_viewers
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self._is_over = threading.Event()
        self.n_images = 0

    def __enter__(self) -> "Viewers":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join(10)

    async def _all(self) -> None:
        await asyncio.gather(*(self._view() for _ in range(self._n_viewers)))

    async def _view(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self._is_over.is_set():
                try:
                    async with session.ws_connect(self._url, max_msg_size=0) as socket:
                        await self._follow(socket)
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.2)  # the page is not there yet, or not any more

    async def _follow(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_str(MAPS)
        async for message in socket:
            if self._is_over.is_set():
                return
            if message.type == aiohttp.WSMsgType.BINARY:
                self.n_images += 1
            elif message.type == aiohttp.WSMsgType.TEXT:
                if json.loads(message.data).get("is_final"):  # the page would stay for who looks on
                    self._is_over.set()
                    return
                await asyncio.sleep(1 / 60)  # a browser draws
                await socket.send_str(MAPS)


def measure(folder: Path, n_pairs: int = N_PAIRS) -> Iterator[Figures]:
    """Yield the pairs, then the ratio and what all scans have lost."""
    console, n_images = Console(), 0
    pairs: dict[str, Figures] = {}
    scans: list[Figures] = []
    for index in range(n_pairs):
        figures: dict[bool, Figures] = {}
        for has_all in (bool(index % 2), not index % 2):
            place = folder / f"{index}-{'all' if has_all else 'alone'}"
            figures[has_all], seen = _scan(place, index, has_all, console)
            n_images += seen
        scans += figures.values()
        pairs[f"pair {index + 1}"] = {
            f"{p}_ms_{name}": figures[has_all][f"time_to_image_ms_{p}"]
            for p in ("p50", "p99")
            for name, has_all in (("alone", False), ("with_all", True))
        }
        yield {"pairs": pairs}
    yield {
        **{
            f"{p}_ratio": statistics.median(
                pair[f"{p}_ms_with_all"] / pair[f"{p}_ms_alone"] for pair in pairs.values()
            )
            for p in ("p50", "p99")
        },
        **{name: sum(scan[name] for scan in scans) for name in ("frames_lost", "frames_pending")},
        "images_viewed": n_images,
    }


def _scan(folder: Path, seed: int, has_all: bool, console: Console) -> tuple[Figures, int]:
    options = DemoOptions(
        save=folder, rate_hz=RATE_HZ, n_frames=N_FRAMES, sample="siemens", seed=seed, stores=has_all
    )
    config = demo_config(options)
    if not has_all:
        return run_demo(options, _without_page(config), console), 0
    port = int(free_address().rpartition(":")[2])
    changed = config.changed(
        viewer=config.viewer.changed(enabled=True, port=port),
        pva=config.pva.changed(enabled=True, prefix="BENCH:"),
    )
    with Viewers(port, N_VIEWERS) as viewers:
        return run_demo(options, changed, console), viewers.n_images


def _without_page(config: Config) -> Config:
    return config.changed(viewer=config.viewer.changed(enabled=False))


BENCHMARK = Benchmark(measure=measure, targets=TARGETS, columns={"pairs": COLUMNS})
