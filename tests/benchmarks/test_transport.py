"""The benchmark `transport` on a short scan of small frames: its figures mean what they say."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

from stream.record.scan import scans_in
from tests.benchmarks.figures import Figures
from tests.benchmarks.kilohertz import fan_out, transport
from tests.benchmarks.kilohertz.live import LiveRun, run_live
from tests.benchmarks.kilohertz.scan import RepeatingScan
from tests.benchmarks.kilohertz.transport import SETTINGS, is_kept
from tests.benchmarks.network.untrained import SHAPE_32, save_untrained


@pytest.mark.slow
def test_every_frame_passes_from_the_detector_to_the_image_beside_bluesky(tmp_path: Path) -> None:
    scan = RepeatingScan(n_frames=150, n_pixels=32)
    run = LiveRun(
        scan=scan,
        rate_hz=50.0,
        weights=save_untrained(tmp_path / "untrained.safetensors", SHAPE_32),
        settings=SETTINGS,
        builders={"inference": "tests.benchmarks.kilohertz.free_network:inference"},
    )
    figures = run_live(run, tmp_path / "run")
    assert figures["why"] == ""
    assert (figures["frames_recorded"], figures["frames_lost"], figures["frames_pending"]) == (150, 0, 0)
    assert figures["frames_mosaicked"] == figures["client_frames_seen"] == 150
    assert 0 < figures["receive_ms_p50"] <= figures["time_to_image_ms_p50"] <= figures["time_to_image_ms_p99"]
    assert all(figures[f"cpu_ms_per_1000_{name}"] > 0 for name in ("detector", "subscriber", "client"))
    (recorded,) = scans_in(tmp_path / "run" / "recordings" / "scans")
    numbers = np.arange(150)
    np.testing.assert_array_equal(recorded.column("frames").read(numbers), scan.frames()[scan.numbers()])
    np.testing.assert_allclose(recorded.column("positions_m").read(numbers), scan.positions_m(), atol=1e-12)
    assert (recorded.column("patches").read(numbers) == 1).all()


def test_a_rate_is_kept_only_if_nothing_waits_is_lost_or_comes_late() -> None:
    kept = {"why": "", "sent_hz": 998.0, "frames_lost": 0, "pending_after_1s": 0}
    assert is_kept(kept, 1000.0)
    for trouble in ({"why": "x"}, {"sent_hz": 950.0}, {"frames_lost": 1}, {"pending_after_1s": 1}):
        assert not is_kept(kept | trouble, 1000.0)


@pytest.mark.parametrize(
    ("can_hz", "found_hz"), [(1600.0, 1562.5), (1000.0, 1000.0), (700.0, 640.0), (1.0, 0.0)]
)
def test_the_limit_is_the_fastest_rate_that_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, can_hz: float, found_hz: float
) -> None:
    def run(rate_hz: float, seconds: float, weights: Path, folder: Path) -> Figures:
        return {"why": "", "sent_hz": rate_hz, "frames_lost": 0, "pending_after_1s": int(rate_hz > can_hz)}

    costs = {"efficiency": 0.9, "frames_per_s": 8e3, "cpu_ms_per_1000_128": 30.0, "measured_on": {}}
    monkeypatch.setattr(transport.ingest, "measure", lambda folder: iter([costs]))
    monkeypatch.setattr(transport.fan_out, "measure", lambda folder: iter([{"fan_out": 1.1}]))
    monkeypatch.setattr(transport, "_run", run)
    figures = {name: value for part in transport.measure(tmp_path) for name, value in part.items()}
    assert figures["sustained_hz"] == found_hz
    assert (figures["ingest_efficiency"], figures["cpu_ms_per_1000_128"]) == (0.9, 30.0)
    assert figures["fan_out"] == 1.1


@pytest.mark.slow
def test_three_stages_read_what_one_subscriber_records(tmp_path: Path) -> None:
    (figures,) = fan_out.measure(tmp_path, n_frames=100, n_pairs=1)
    assert figures["fan_out"] > 0
    assert figures["paced_cpu_ms_per_1000_128"] > 0
    scans = [scan for folder in tmp_path.iterdir() for scan in scans_in(folder)]
    readers = sorted(len([*(scan.folder / "ledger").glob("reader-*")]) for scan in scans)
    assert readers == [1, 3]
    assert all(scan.done("reader-0").size == 100 for scan in scans)


def test_frames_repeat_with_the_positions_in_their_tile() -> None:
    scan = RepeatingScan(n_frames=1024, n_pixels=32)
    numbers, corners = scan.numbers(), scan.geometry.to_pixels(scan.positions_m())
    assert len(scan.frames()) == 256
    same = np.flatnonzero(numbers == numbers[0])
    apart = (corners[same] - corners[0]) / (16 * scan.step_px)
    np.testing.assert_allclose(apart, np.rint(apart), atol=1e-6)
    assert len({tuple(place) for place in np.rint(apart)}) == len(same) == 4
