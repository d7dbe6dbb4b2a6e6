"""Many short series, and runs that were killed: what a shift does to the real processes."""

from pathlib import Path

import pytest

from tests.helpers.letter import ScannedSample
from tests.helpers.shift import ITSELF, growth_over_series, killed_and_resumed

pytestmark = pytest.mark.slow

N_WARM, N_SERIES = 20, 120
MOST_GROWTH_MB = 5.0


@pytest.mark.timeout(900)
def test_no_process_of_a_run_holds_more_after_many_series_than_after_a_few(
    run_folder: Path, sample: ScannedSample
) -> None:
    for name, grown in growth_over_series(run_folder, sample.first(16), N_WARM, N_SERIES).items():
        # Of the last scan a process may be about to look at a file, or to let go of it.
        assert grown.descriptors <= 16, f"{name}: {grown}"
        assert grown.maps <= 16, f"{name}: {grown}"
        # Of the tests' own process earlier tests have a share that comes and goes.
        assert name == ITSELF or grown.memory_mb < MOST_GROWTH_MB, f"{name}: {grown}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ends", [("--series", 1), ("--resume",)])
def test_a_scan_whose_whole_run_was_killed_is_finished_by_the_next_one_and_counts_there(
    run_folder: Path, ends: tuple[object, ...]
) -> None:
    resumed = killed_and_resumed(run_folder, *ends)
    scan = resumed.scan
    assert scan["frames_recorded"] >= resumed.n_recorded >= 20
    assert scan["frames_recorded"] == scan["frames_refined"] + scan["frames_without_position"]
    assert resumed.status == (0 if scan["is_complete"] else 1), resumed.told
    assert "nothing from" not in resumed.told
    assert any("goes on" in event["text"] for event in scan["events"]), scan["events"]
