"""What is said of a benchmark's figures, and which benchmarks there are."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks.__main__ import BENCHMARKS
from tests.benchmarks.figures import Benchmark, Figures, is_met


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=100, quiet=True)


def test_a_target_is_met_up_to_its_limit() -> None:
    assert is_met(0.5, ("<=", 0.5)) and not is_met(0.51, ("<=", 0.5))
    assert is_met(3, (">=", 3)) and not is_met(2.9, (">=", 3))
    assert is_met(0.7, ("in", (0.6, 0.7))) and not is_met(0.71, ("in", (0.6, 0.7)))
    assert not is_met(float("nan"), ("<=", 0.5))


def test_figures_come_with_their_targets_and_the_machine(tmp_path: Path, console: Console) -> None:
    def measure(folder: Path) -> Iterator[Figures]:
        assert folder == tmp_path
        yield {"error": 0.25, "by_sample": {"star": {"error": 0.125, "hidden": 7.0}}, "curve": [1, 2]}
        yield {"slow_s": 2.0, "device": "none", "measured_on": {"frames": 12}}

    targets = {"error": ("<=", 0.3), "slow_s": ("<=", 1.0)}
    benchmark = Benchmark(measure=measure, targets=targets, columns={"by_sample": ("error",)})
    figures = benchmark.run(tmp_path, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert {"cpu", "cores", "Python", "numpy", "frames"} <= figures["measured_on"].keys()
    console.quiet = False
    with console.capture() as shown:
        benchmark.show("name", figures, console)
    rows = [line.split() for line in shown.get().replace("│", "").splitlines()]
    assert ["error", "0.25", "<=", "0.3", "met"] in rows
    assert ["slow_s", "2", "<=", "1.0", "missed"] in rows
    assert ["device", "none"] in rows
    assert ["star", "0.125"] in rows
    assert "hidden" not in shown.get() and "curve" not in shown.get()
    assert f"{figures['measured_on']['cores']} cores" in shown.get()


def test_a_part_that_fails_leaves_the_figures_before_it(tmp_path: Path) -> None:
    def measure(folder: Path) -> Iterator[Figures]:
        yield {"error": 0.25}
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        Benchmark(measure=measure).run(tmp_path, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["error"] == 0.25


def test_without_a_name_all_benchmarks_are_listed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks"], capture_output=True, text=True, check=True
    )
    described = {
        line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  ")
    }
    for name, module in BENCHMARKS.items():
        assert len(described[name]) > 5
        assert isinstance(importlib.import_module(module).BENCHMARK, Benchmark)
