"""How long a person waits: from `ptychostream demo` to a page that answers and to the first image.

The baseline is one process that imports what the slowest stage of the run imports and ends, started before
each demo; the ratio of neighbours does not know how fast the computer is.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stream.client import LiveReconstruction
from tests.benchmarks.figures import Benchmark, Figures

N_PAIRS = 5
PATIENCE_S = 120.0
IMPORTS = "import launch.run.stages, stream.stages.inference.worker, operators.network.registry, torch"
PAGE, LIVE = re.compile(r"http://\S+"), re.compile(r"tcp://\S+")


class Start(NamedTuple):
    """Seconds from the command to each."""

    page_s: float
    image_s: float


def measure(folder: Path, *, n_pairs: int = N_PAIRS) -> Iterator[Figures]:
    """Yield the figures, and as `measured_on` how many pairs there were."""
    imports, starts = [], []
    for pair in range(n_pairs + 1):  # the first pays for files that no cache holds yet
        imports.append(_imports_s())
        starts.append(_start(folder / str(pair)))
    yield _figures(imports[1:], starts[1:]) | {"measured_on": {"pairs": n_pairs}}


def _figures(imports: list[float], starts: list[Start]) -> Figures:
    pairs = [*zip(imports, starts, strict=True)]
    return {
        "page_s": statistics.median(start.page_s for start in starts),
        "first_image_s": statistics.median(start.image_s for start in starts),
        "imports_s": statistics.median(imports),
        "page_over_imports": statistics.median(start.page_s / bare for bare, start in pairs),
        "first_image_over_imports": statistics.median(start.image_s / bare for bare, start in pairs),
    }


def _imports_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.perf_counter() - began


def _start(save: Path) -> Start:
    command = [sys.executable, "-u", "-m", "launch", "demo", "--no-store", "--save", str(save)]
    log = save.with_suffix(".log")
    with log.open("w") as file:
        began = time.perf_counter()
        demo = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            page = _printed(PAGE, log, demo)
            _until_it_answers(page)
            page_s = time.perf_counter() - began
            with LiveReconstruction(_printed(LIVE, log, demo), timeout_s=PATIENCE_S) as live:
                next(iter(live))
            return Start(page_s, time.perf_counter() - began)
        finally:
            os.killpg(demo.pid, signal.SIGINT)
            os.killpg(demo.pid, signal.SIGINT)  # at once
            demo.wait(PATIENCE_S)


def _printed(what: re.Pattern[str], log: Path, demo: subprocess.Popen[bytes]) -> str:
    """Return what the demo prints of a kind, as soon as it does."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and demo.poll() is None:
        if found := what.search(log.read_text()):
            return found[0]
        time.sleep(0.01)
    raise RuntimeError(f"the demo printed no address:\n{log.read_text()}")


def _until_it_answers(page: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(page, timeout=1.0).read()
        except urllib.error.URLError:
            time.sleep(0.01)
        else:
            return
    raise TimeoutError(f"{page} does not answer")


BENCHMARK = Benchmark(measure=measure)
