import numpy as np
import pytest

from operators.optics.moments import moments
from stream.record.calibration import read_calibration
from stream.record.scan import Scan, State
from stream.stages.stitching.composition import compose
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import (
    GEOMETRY,
    N_PIXELS,
    Sample,
    close,
    lose,
    make_scan,
    place,
    record,
    states,
)
from tests.helpers.stream.stitcher_bench import (
    BETWEEN,
    INPUTS,
    INTERVAL_S,
    LOWER,
    UPPER,
    Bench,
    error,
    refine,
)
from tests.helpers.stream.stitcher_client import Watcher


@pytest.fixture(scope="module")
def scanned():
    return Sample()


@pytest.fixture
def bench(tmp_path, scanned):
    return Bench(tmp_path, scanned)


@pytest.fixture
def bench_with_refinement(tmp_path, scanned):
    return Bench(tmp_path, scanned, uses_refinement=True)


def test_a_scan_becomes_the_object(bench, scanned):
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bench.ends()
    image = bench.sees()
    assert error(image, scanned) < 1e-4
    assert (np.isfinite(image.sigma) == image.coverage).all()
    assert image.object_pixel_m == GEOMETRY.object_pixel_m
    assert (image.run_id, image.scan, image.frames_seen) == ("run-7", "0000-series", len(scanned))
    assert (states(bench.scan, "stitcher") == State.DONE).all()


def test_the_picture_grows_in_versions(bench, scanned):
    versions, seen, covered = [], [], []
    for numbers in np.array_split(np.arange(len(scanned)), 4):
        scanned.fill(bench.scan, numbers)
        bench.turns()
        image = bench.sees()
        versions.append(image.version)
        seen.append(image.frames_seen)
        covered.append(image.coverage.sum())
        assert not image.is_final
    assert seen == [9, 18, 27, 36]
    assert versions == sorted(set(versions))
    assert covered == sorted(set(covered))


def test_a_stitcher_that_is_behind_shows_new_ground_first(bench, scanned):
    bench.stitcher.batch_size = 2
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bench.turns(3)
    done = np.flatnonzero(states(bench.scan, "stitcher") == State.DONE)
    assert len(done) <= 6
    assert set((done // 6).tolist()) == {0, 2}, "rows that hardly overlap; by age all were of the first"
    bench.ends()
    bench.turns()
    assert bench.sees().frames_seen == len(scanned)


def test_only_tiles_that_changed_are_sent(bench, scanned):
    scanned.fill(bench.scan, np.arange(len(scanned) - 1))
    bench.turns()
    bench.sees()
    n_before = len(bench.watcher.tiles)
    scanned.fill(bench.scan, [len(scanned) - 1])
    bench.turns()
    image = bench.sees()
    assert 0 < len(bench.watcher.tiles) <= 4 < n_before
    bench.turns()
    assert bench.sees() is None, "nothing has changed since"
    late = Watcher(bench.stitcher, b"late").asks()
    np.testing.assert_array_equal(late.object, image.object)
    np.testing.assert_array_equal(late.sigma, image.sigma)


def test_islands_that_meet_are_published_in_one_phase(bench, scanned):
    for numbers in (UPPER, LOWER):
        scanned.fill(bench.scan, numbers)
        bench.turns()
    assert error(bench.sees(), scanned) > 0.1
    scanned.fill(bench.scan, BETWEEN)
    bench.turns()
    assert error(bench.sees(), scanned) < 1e-4


def test_how_true_the_error_bars_are_travels_with_the_picture_and_stays_with_the_scan(tmp_path):
    scanned = Sample(n_side=14)
    bench = Bench(tmp_path, scanned, uses_refinement=True)
    numbers = np.arange(len(scanned))
    scanned.fill(bench.scan, numbers)
    bench.turns()
    before = bench.sees()
    assert (before.coverage68, before.coverage95, before.n_calibrated) == (None, None, 0)
    visits = bench.scan.column("visits", writable=True)
    for version in (1, 2):
        visits.write(numbers, 20 * version)
        refine(bench, version=version)
        bench.turns()
    image = bench.sees()
    assert image.n_calibrated > 0
    assert 0 <= image.coverage68 <= image.coverage95 <= 1
    network = (image.source == 1) & (before.source == 1)
    np.testing.assert_allclose(image.sigma[network], image.sigma_factor * before.sigma[network], rtol=1e-4)
    bench.ends("refinement")
    assert read_calibration(bench.scan.folder).coverage68 == bench.sees().coverage68


def test_the_picture_says_which_weights_made_how_many_patches(bench, scanned):
    numbers = np.arange(10)
    scanned.fill(bench.scan, numbers)
    bench.scan.column("model", writable=True).write(numbers, [0xABC] * 6 + [0xDEF] * 4)
    bench.turns()
    assert bench.sees().models == {"000000000abc": 6, "000000000def": 4}


def test_versions_come_no_faster_than_asked_for(bench, scanned):
    for number in range(10):
        scanned.fill(bench.scan, [number])
        bench.loop.turn()
        bench.clock.now += INTERVAL_S / 5
    assert bench.sees().version == 2


def test_versions_come_more_slowly_where_they_take_long(bench, scanned, monkeypatch):
    def slow_compose(*arguments, **options):
        bench.worked.now += 0.1
        return compose(*arguments, **options)

    monkeypatch.setattr("stream.stages.stitching.picture.compose", slow_compose)
    versions = []
    for number in range(30):
        scanned.fill(bench.scan, [number])
        bench.loop.turn()
        bench.clock.now += INTERVAL_S
        versions.append(bench.loop.progress()[1]["version"])
    worked_s = bench.worked.now - Clock().now
    assert 0.2 < worked_s / (30 * INTERVAL_S) < 0.6, "the share of publishing, with the version begun last"
    assert versions[-1] < 10


def test_the_stage_sleeps_until_the_next_version_is_due(bench, scanned):
    scanned.fill(bench.scan, [0])
    bench.loop.turn()
    bench.clock.now += INTERVAL_S - 0.005
    scanned.fill(bench.scan, [1])
    bench.loop.turn()
    assert bench.loop.turn() == pytest.approx(0.005)


def test_the_stage_is_heard_of_while_it_stitches_the_last_image(bench, scanned, monkeypatch):
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bench.turns()
    monkeypatch.setattr("operators.mosaic.stitching.PART", 4)
    monkeypatch.setattr("stream.stages.cursor.SLICE_S", 0.0)
    close(bench.scan, *INPUTS)
    n_turns = 0
    while not bench.scan.count("stitcher", "closed"):
        bench.turns(1)
        n_turns += 1
    assert n_turns > 3 * len(scanned) / 4
    assert error(bench.sees(), scanned) < 1e-4


def test_the_last_frames_are_shown_before_all_are_stitched_again(bench, scanned, monkeypatch):
    scanned.fill(bench.scan, np.arange(len(scanned) - 1))
    bench.loop.turn()
    scanned.fill(bench.scan, [len(scanned) - 1])
    close(bench.scan, *INPUTS)
    monkeypatch.setattr("stream.stages.cursor.SLICE_S", 0.0)
    for _ in range(2):  # takes the frame in, begins to stitch
        bench.loop.turn()
    assert not bench.scan.count("stitcher", "closed")
    assert bench.sees().frames_seen == len(scanned)


def test_there_is_no_picture_before_the_first(bench, scanned):
    assert bench.sees() is None
    bench.loop.turn()
    assert bench.sees() is None
    assert bench.loop.progress() == ("0000-series", {"version": 0})


def test_frames_count_as_seen_when_they_are_published(bench, scanned):
    scanned.fill(bench.scan, [0, 1, 2])
    bench.loop.turn()
    scanned.fill(bench.scan, [3])
    bench.loop.turn()
    image = bench.sees()
    assert image.frames_seen == len(image.path) == 3
    assert states(bench.scan, "stitcher").tolist() == [State.DONE] * 3 + [State.PENDING]


def test_the_path_is_that_of_the_probe_centres_in_frame_order(bench, scanned):
    numbers = np.array([5, 1, 9])
    scanned.fill(bench.scan, numbers)
    bench.turns()
    expected = scanned.corners[np.sort(numbers)] + N_PIXELS / 2
    np.testing.assert_array_equal(bench.sees().path, expected)
    scanned.fill(bench.scan, [3, 12])
    bench.turns()
    expected = scanned.corners[[1, 3, 5, 9, 12]] + N_PIXELS / 2
    np.testing.assert_array_equal(bench.sees().path, expected)
    assert bench.watcher.frames.tolist() == [3, 12], "those that are new are sent"
    np.testing.assert_array_equal(Watcher(bench.stitcher, b"late").asks().path, expected)


def test_the_final_picture_says_that_it_is(bench, scanned):
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bench.ends()
    image = bench.sees()
    assert image.is_final
    assert image.note == ""
    assert image.counts["expected"] == image.counts["mosaicked"] == len(scanned)
    assert image.counts["pending"] == 0
    assert Scan(bench.scan.folder).count("stitcher", "closed") == 1
    bench.turns()
    assert bench.sees() is None
    assert Watcher(bench.stitcher, b"late").asks().is_final, "who comes late gets it too"


def test_a_restart_goes_on_with_versions_and_shows_all_frames(bench, scanned):
    scanned.fill(bench.scan, np.arange(20))
    bench.turns()
    before = bench.sees()
    bench.restart()
    bench.watcher.meets(bench.stitcher)
    bench.turns()
    after = bench.sees()
    assert after.version > before.version
    assert after.frames_seen == 20
    assert error(after, scanned) < 1e-4
    scanned.fill(bench.scan, np.arange(20, len(scanned)))
    bench.ends()
    image = bench.sees()
    assert image.frames_seen == len(scanned)
    assert error(image, scanned) < 1e-4


def test_a_restart_keeps_when_a_frame_was_first_shown(bench, scanned):
    scanned.fill(bench.scan, np.arange(20))
    bench.turns()
    first = Scan(bench.scan.folder).column("mosaicked_s").head(20)
    bench.restart()
    bench.turns()
    np.testing.assert_array_equal(Scan(bench.scan.folder).column("mosaicked_s").head(20), first)


def test_time_to_image_is_quoted_with_the_picture(bench, scanned):
    numbers = np.arange(8)
    record(bench.scan, numbers, received_s=bench.clock.now)
    scanned.fill(bench.scan, numbers, "positions", "inference")
    bench.clock.now += 0.25
    bench.loop.turn()
    assert bench.sees().time_to_image_ms == pytest.approx((250, 250))


def test_the_next_series_is_a_new_picture(bench, scanned):
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bench.ends()
    assert bench.sees().is_final
    second = make_scan(bench.scans, "0001-next")
    scanned.fill(second, np.arange(4))
    bench.turns()
    image = bench.sees()
    assert (image.scan, image.frames_seen, image.is_final) == ("0001-next", 4, False)


def test_a_series_without_frames_ends_with_a_picture_that_says_so(bench):
    bench.ends()
    image = bench.sees()
    assert image.is_final
    assert image.note == "no frames"
    assert image.frames_seen == 0
    assert not image.coverage.any()


def test_what_is_missing_is_named(bench, scanned):
    numbers = np.arange(len(scanned))
    scanned.fill(bench.scan, np.setdiff1d(numbers, [3, 4, 30]))
    lose(bench.scan, [3])
    lose(bench.scan, [4], State.BAD)
    record(bench.scan, [30])
    bench.scan.mark("positions", [30], State.NO_POSITION)
    bench.scan.mark("inference", [8], State.UNFINISHED)
    bench.ends()
    image = bench.sees()
    assert image.is_final
    assert image.frames_seen == len(scanned) - 4
    expected = ["lost 1 frame (3)", "could not read 1 frame (4)", "no position for 1 frame (30)"]
    assert image.note.split("; ") == [*expected, "inference did not finish 1 frame (8)"]
    assert image.counts["no_position"] == 1
    assert image.counts["lost"] == 2


def test_a_stitcher_stopped_in_the_middle_names_every_frame_that_is_not_in_the_picture(bench, scanned):
    scanned.fill(bench.scan, np.arange(10))
    bench.turns()
    bench.sees()
    scanned.fill(bench.scan, [10, 14], "subscriber", "positions")
    scanned.fill(bench.scan, [12])
    bench.loop.finish()
    image = bench.sees()
    assert image.is_final
    not_seen, not_inferred, not_stitched = image.note.split("; ")
    assert not_seen == "never saw 2 frames (11, 13)"
    assert not_inferred == "inference did not finish 2 frames (10, 14)"
    assert not_stitched == "stitcher did not finish 1 frame (12)"


def with_light(scan, scanned, numbers):
    """Record and place frames of a number of photons each of their own."""
    frames = np.zeros((len(numbers), *scan.header.frame_shape), np.uint16)
    frames[:, 3:6, 4:8] = 1 + np.asarray(numbers)[:, None, None]
    record(scan, numbers, frames)
    place(scan, numbers, scanned.corners[numbers])
    return frames.sum(axis=(1, 2))


def test_what_patterns_show_alone_is_told_before_anything_is_known_of_the_object(bench, scanned):
    photons = with_light(bench.scan, scanned, np.arange(8))
    record(bench.scan, [9])  # nobody knows where
    bench.turns(3)
    image = bench.sees()
    assert (image.frames_seen, len(image.path), image.coverage.any()) == (0, 0, False)
    np.testing.assert_allclose(image.moments[:, :2], scanned.corners[:8] + N_PIXELS / 2)
    np.testing.assert_allclose(image.moments[:, 2], photons)
    maps, _ = image.scan_maps()
    assert np.isfinite(maps["intensity"]).any()


def test_moments_are_found_once_and_told_of_all_frames_also_after_a_restart(bench, scanned, monkeypatch):
    with_light(bench.scan, scanned, np.arange(8))
    bench.turns(3)
    bench.restart()
    looked_at = []
    monkeypatch.setattr(
        "stream.stages.stitching.frame_moments.moments",
        lambda patterns, mask: (looked_at.append(len(patterns)), moments(patterns, mask))[1],
    )
    with_light(bench.scan, scanned, np.arange(8, len(scanned)))
    scanned.fill(bench.scan, np.arange(len(scanned)), "inference")
    bench.ends()
    assert sum(looked_at) == len(scanned) - 8
    image = Watcher(bench.stitcher).asks()
    assert image.is_final
    assert len(image.moments) == image.frames_seen == len(scanned)
