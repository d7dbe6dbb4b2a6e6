"""Faults around what is recorded: a slow network, a full disk, a detector, clocks, the power."""

from pathlib import Path

import numpy as np
import pytest

from operators.arrays import abs2
from operators.geometry import window_corners
from operators.optics.trajectories import jittered_raster
from stream.record.account import time_to_image_s
from stream.record.scan import State
from tests.benchmarks.figures import Figures
from tests.benchmarks.overload import run_on_counted_clock
from tests.helpers.stream.detector import Recorder, assert_recorded, numbers_in, series
from tests.helpers.stream.full_disk import fill_disk, limit_disk
from tests.helpers.stream.power import cut_the_power
from tests.helpers.stream.scans import Sample, make_scan, record

RATE_HZ, CAPACITY = 1000.0, 0.75
SOON_S, LEAST_SOON = 0.1, 0.5  # of the frames
HOUR_S = 3600.0


def slow_consumer(folder: Path, in_full: bool) -> Figures:
    """A network of three quarters of the rate: new frames first, and all of them soon after the last."""
    n_side = 141 if in_full else 30
    corners = window_corners(jittered_raster(n_side, n_side, 8.0, 1.0, np.random.default_rng(0)))
    light, n, soon = abs2(Sample().probe).sum(axis=0), len(corners), dict[str, float]()
    for order in ("age", "new ground"):
        scan, numbers = make_scan(folder / order), np.arange(n)
        run_on_counted_clock(scan, corners, light, order, RATE_HZ, RATE_HZ * CAPACITY)
        received_s, shown_s = (scan.column(name).read(numbers) for name in ("received_s", "mosaicked_s"))
        soon[order] = float((shown_s - received_s <= SOON_S).mean())
    done_s, within_s = float(shown_s.max()), n / (RATE_HZ * CAPACITY) + 1.0
    n_pending, newest_first = int(np.count_nonzero(shown_s == 0)), soon["new ground"]
    return {
        "passed": n_pending == 0 and done_s <= within_s and newest_first >= LEAST_SOON,
        "frames": n,
        "frames_pending": n_pending,
        "done_s": done_s,
        "done_within_s": within_s,
        "shown_soon": newest_first,
        "shown_soon_oldest_first": soon["age"],
        "found": f"{newest_first:.0%} shown within {SOON_S:g} s, oldest first {soon['age']:.0%}; "
        f"all after {done_s:.1f} of {within_s:.1f} s",
    }


def full_when_armed(folder: Path, in_full: bool) -> Figures:
    """A series that does not fit is refused as a whole; the next one is recorded."""
    recorder = Recorder(folder)
    with pytest.MonkeyPatch.context() as patch:
        limit_disk(patch, 10_000_000)
        recorder.take(series("large", 3, content=1, announce=1_000_000))
        left = len(list(folder.glob("*/columns")))
        n_refused = recorder.subscriber.progress()[1].get("refused", 0)
        recorder.take(series("small", 50, content=1))
    assert_recorded(recorder.scan(), range(50), content=1)
    return {
        "passed": n_refused == 1 and left == 0,
        "series_refused": n_refused,
        "found": f"{n_refused} series refused, nothing left of it, the next one recorded",
    }


def full_in_series(folder: Path, in_full: bool) -> Figures:
    """A disk that fills in the series: what is recorded stays, the rest is counted; later there is room."""
    recorder, n = Recorder(folder), 20_000 if in_full else 5_000
    messages = series("filling", n, content=1, announce=1)
    recorder.take(messages[:1001])
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch)
        recorder.take(messages[1001:])
    scan = recorder.scan()
    kept, without_room = numbers_in(scan, State.DONE), numbers_in(scan, State.NO_ROOM)
    assert_recorded(scan, kept, content=1)
    n_pending = recorder.account().pending
    recorder.take(series("after", 50, content=1))
    assert_recorded(recorder.scan(), range(50), content=1)
    return {
        "passed": len(kept) + len(without_room) == n and len(kept) >= 1000 and n_pending == 0,
        "frames_recorded": len(kept),
        "frames_without_room": len(without_room),
        "frames_pending": n_pending,
        "found": f"{len(kept)} recorded and as sent, {len(without_room)} counted, the next series recorded",
    }


def detector_restarts(folder: Path, in_full: bool) -> Figures:
    """A detector that begins a new series in the middle of one: the old one ends, and nothing is mixed."""
    recorder, n_restarts, n = Recorder(folder), 50 if in_full else 5, 40
    for index in range(n_restarts):
        recorder.take(series(f"series {index}", n, content=index + 1, stop_after=20 + index % 20))
    recorder.take(series("last", n, content=n_restarts + 1))
    lost = 0
    for index in range(n_restarts):
        assert_recorded(recorder.scan(index), range(20 + index % 20), content=index + 1)
        lost += recorder.account(index).lost
    assert_recorded(recorder.scan(), range(n), content=n_restarts + 1)
    missing = sum(n - 20 - index % 20 for index in range(n_restarts))
    return {
        "passed": lost == missing,
        "restarts": n_restarts,
        "frames_lost": lost,
        "found": f"{n_restarts} restarts, no frame in another series, {lost} of {missing} missing named lost",
    }


def clock_skew(folder: Path, in_full: bool) -> Figures:
    """The detector's clock an hour ahead, an hour behind, and one that jumps back: no time changes."""
    folder.mkdir(parents=True)
    found = []
    for index, skew_s in enumerate((0.0, HOUR_S, -HOUR_S)):
        scan, numbers = make_scan(folder, f"{index:04d}-a"), np.arange(1000)
        record(scan, numbers)
        taken_s = 1e4 + numbers / RATE_HZ
        scan.column("exposed_s", writable=True).write(numbers, taken_s + skew_s)
        scan.column("received_s", writable=True).write(numbers, taken_s + 0.01)
        scan.column("mosaicked_s", writable=True).write(numbers, taken_s + 0.06)
        found.append(time_to_image_s(scan))
    apart_ms = max(float(np.abs(times - found[0]).max()) for times in found) * 1e3
    recorder = Recorder(folder / "scans")
    messages = series("a", 1000, content=1)
    recorder.take(messages[:500])
    recorder.now -= HOUR_S
    recorder.take(messages[500:])
    assert_recorded(recorder.scan(), range(1000), content=1)
    return {
        "passed": apart_ms < 0.01 and recorder.counters()["closed"] == 1,
        "time_to_image_apart_ms": apart_ms,
        "found": f"times to image {apart_ms:.1g} ms apart, every frame of a series recorded",
    }


def power_cut(folder: Path, in_full: bool) -> Figures:
    """Power cuts while frames come: none counts whose pixels are gone, none is gone that was on the disk."""
    rng, n_kept, n_lost, n_wrong = np.random.default_rng(0), 0, 0, 0
    n_cuts = 100 if in_full else 4
    for index in range(n_cuts):
        after = cut_the_power(folder / str(index), rng)
        n_kept, n_lost, n_wrong = n_kept + after.n_kept, n_lost + after.n_kept_lost, n_wrong + after.n_wrong
    return {
        "passed": n_lost == n_wrong == 0,
        "cuts": n_cuts,
        "frames_on_disk": n_kept,
        "frames_on_disk_lost": n_lost,
        "frames_wrong": n_wrong,
        "found": f"{n_cuts} cuts: of {n_kept} frames on the disk {n_lost} lost, {n_wrong} wrong ones count",
    }
