from pathlib import Path

import pytest

from tests.benchmarks import overload


def test_a_stage_an_eighth_as_fast_as_frames_come_shows_what_was_scanned_within_half_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "CAPACITIES_HZ", (126,))
    (row,) = overload.by_capacity(tmp_path, 1600, 1000.0).values()
    assert row["new ground, p95 ms"] < 500
    assert row["age, p95 ms"] > 20 * row["new ground, p95 ms"]
