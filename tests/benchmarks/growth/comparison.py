"""Whether cost follows change: turns by frames before them, publishing by canvas, memory by frames held."""

from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.growth.memory import memory_figures
from tests.benchmarks.growth.publishing import publishing_figures
from tests.benchmarks.growth.turns import turn_figures

TARGETS = {
    "growth_turn_us_1e5_over_1e3": ("<=", 1.5),
    "publish_ms_4096_over_512": ("<=", 1.5),
    "refinement_rss_1e5_gb": ("<=", 1.5),
}


def measure(folder: Path) -> Iterator[Figures]:
    """Yield what a turn of every stage costs, then what publishing does, then memory."""
    turns: dict[str, dict[str, float]] = {}
    for name, figures in turn_figures(folder / "turns"):
        turns[name] = figures
        worst = max(each["1e5_over_1e3"] for each in turns.values())
        yield {"turns": turns, "growth_turn_us_1e5_over_1e3": worst}
    yield publishing_figures(folder / "publishing")
    yield from memory_figures(folder / "memory")


BENCHMARK = Benchmark(
    measure=measure, targets=TARGETS, columns={"turns": ("us_1e3", "us_1e5", "1e5_over_1e3")}
)
