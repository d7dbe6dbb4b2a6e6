"""How fast frames become tiles of the live image, with a network that costs nothing.

Everything else is real and in its own process: detector, subscriber, bluesky's positions, stitcher, recorder,
page, and a client that follows. The limit is the fastest of a few rates, each kept for seconds, at which the
detector never waits, nothing is lost, and all is in the image a second after the last frame.

What the subscriber alone costs stands beside it, as `python -m tests.benchmarks ingest` finds it, and what it
costs that three stages read the frames instead of one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.run.processes import RunFailedError
from tests.benchmarks import ingest
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.kilohertz import fan_out
from tests.benchmarks.kilohertz.live import LiveRun, run_live
from tests.benchmarks.kilohertz.scan import RepeatingScan
from tests.benchmarks.network.untrained import SHAPE_128, save_untrained

RATE_HZ, SECONDS = 1000.0, 60.0
DEADLINE_S = 0.02
STEP, MOST_STEPS, SEARCH_S = 1.25, 4, 8.0  # of the search for the limit
PATIENCE_S = 300.0  # for the final image, which is stitched anew
KEPT = 0.99  # of the rate, by a detector that is not made to wait
SETTINGS: dict[str, dict[str, Any]] = {
    "network": {"device": "cpu", "batch_size": 32, "deadline_s": DEADLINE_S},
    "refinement": {"enabled": False},
}
TARGETS = {
    "frames_lost": ("<=", 0),
    "frames_pending": ("<=", 0),
    "pending_after_1s": ("<=", 0),
    "transport_ms_p99": ("<=", 60 + 1e3 * DEADLINE_S),
    "ingest_efficiency": ingest.TARGETS["efficiency"],
    "cpu_ms_per_1000_128": ingest.TARGETS["cpu_ms_per_1000_128"],
    **fan_out.TARGETS,
}


def measure(folder: Path, *, seconds: float = SECONDS, searches: bool = True) -> Iterator[Figures]:
    """Yield what the subscriber costs, the figures of a run at 1 kHz, then the limit.

    Parameters
    ----------
    folder : Path
        For the scans: 60,000 frames and their patches are 6 GB.
    seconds : float
        For which frames come at 1 kHz.
    searches : bool
        Whether to look for the limit.
    """
    costs = [figures for part in ingest.measure(folder / "ingest") for figures in part.items()]
    efficiencies = {name: f"ingest_{name}" for name, _ in costs if "efficiency" in name}
    wanted = [(name, value) for name, value in costs if name in efficiencies or name.endswith("_128")]
    yield {efficiencies.get(name, name): value for name, value in wanted}
    yield from fan_out.measure(folder / "fan-out")
    weights = save_untrained(folder / "untrained.safetensors", SHAPE_128)
    figures = _run(RATE_HZ, seconds, weights, folder / "run")
    yield {name.replace("time_to_image", "transport"): value for name, value in figures.items()} | {
        "measured_on": {"frames": f"{seconds:g} s of 128x128 uint16 bslz4"}
    }
    if figures["why"]:
        raise RunFailedError(figures["why"])
    if searches:
        yield {"sustained_hz": _limit(is_kept(figures, RATE_HZ), weights, folder)}


def is_kept(figures: Figures, rate_hz: float) -> bool:
    """Return whether the pipeline has kept pace."""
    return (
        not figures["why"]
        and figures["sent_hz"] >= KEPT * rate_hz
        and not (figures["frames_lost"] or figures["pending_after_1s"])
    )


def _limit(is_usual_kept: bool, weights: Path, folder: Path) -> float:
    """Returns the fastest rate that is kept, upwards or downwards from the usual one, Hz; 0 if none is."""
    kept_hz = RATE_HZ if is_usual_kept else 0.0
    for step in range(1, MOST_STEPS + 1):
        rate_hz = RATE_HZ * STEP ** (step if is_usual_kept else -step)
        is_now = is_kept(_run(rate_hz, SEARCH_S, weights, folder / f"search-{step}"), rate_hz)
        if is_now:
            kept_hz = rate_hz
        if is_now != is_usual_kept:
            break
    return kept_hz


def _run(rate_hz: float, seconds: float, weights: Path, folder: Path) -> Figures:
    run = LiveRun(
        scan=RepeatingScan(n_frames=round(rate_hz * seconds)),
        rate_hz=rate_hz,
        weights=weights,
        settings=SETTINGS,
        builders={"inference": "tests.benchmarks.kilohertz.free_network:inference"},
        patience_s=PATIENCE_S,
    )
    return run_live(run, folder)


BENCHMARK = Benchmark(measure=measure, targets=TARGETS)
