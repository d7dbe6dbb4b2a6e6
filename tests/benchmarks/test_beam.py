from pathlib import Path

import pytest

from tests.benchmarks.beam import BENCHMARK


@pytest.mark.slow
def test_beams_are_compared_in_one_run_and_a_monitor_tells_what_varies(
    tmp_path: Path,
) -> None:
    assert BENCHMARK.rehearse is not None
    figures = {name: value for part in BENCHMARK.rehearse(tmp_path) for name, value in part.items()}
    assert set(BENCHMARK.targets) <= set(figures)
    assert figures["flux_monitor_ratio"] < 1.1
    assert figures["flux_monitor_ratio"] < figures["flux_unknown_ratio"]
    assert figures["background_dark_ratio"] < figures["background_unknown_ratio"]
