"""Refined ground in the picture of the stitcher."""

import numpy as np
import pytest

from operators.geometry import Bounds
from stream.record.scan import State
from stream.record.snapshot import TILE_PX, SnapshotWriter, read_news, tile_bounds, tiles_on
from stream.stages.stitching import picture
from stream.stages.stitching.composition import MOSAIC, REFINED
from tests.helpers.stream.scans import (
    Sample,
    close,
    snapshot_of,
)
from tests.helpers.stream.stitcher_bench import BETWEEN, INTERVAL_S, LOWER, UPPER, Bench, error, refine
from tests.helpers.stream.stitcher_client import Watcher


@pytest.fixture(scope="module")
def scanned():
    return Sample()


@pytest.fixture
def bench_with_refinement(tmp_path, scanned):
    return Bench(tmp_path, scanned, uses_refinement=True)


def test_an_island_that_is_turned_stays_joined_to_refined_ground(bench_with_refinement, scanned):
    bench = bench_with_refinement
    for numbers in (UPPER, LOWER):
        scanned.fill(bench.scan, numbers)
        bench.turns()
    refine(bench)
    bench.turns()
    scanned.fill(bench.scan, BETWEEN)
    bench.turns()
    image = bench.sees()
    assert {MOSAIC, REFINED} <= set(np.unique(image.source))
    assert error(image, scanned) < 0.01


def test_the_refined_object_takes_the_place_of_the_mosaic_in_its_phase(bench_with_refinement, scanned):
    bench = bench_with_refinement
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bench.turns()
    bench.sees()
    for version, turn in enumerate([2.0, -1.0], start=1):
        refine(bench, turn, version)
        bench.turns()
        image = bench.sees()
        assert set(np.unique(image.source)) >= {1, 2}
        assert (image.epoch, image.error) == (3.0 * version, 0.1)
        assert error(image, scanned) < 1e-3, "one phase across mosaic and refined object"


def test_the_final_picture_is_in_one_phase_although_the_mosaic_was_made_anew(bench_with_refinement, scanned):
    bench = bench_with_refinement
    # The live mosaic begins with frame 29 and has its phase, the final one has that of frame 0.
    order = np.roll(np.arange(len(scanned)), 7)
    for numbers in np.array_split(order, 4):
        scanned.fill(bench.scan, numbers)
        bench.turns()
    refine(bench)
    bench.turns()
    bench.ends("refinement")
    image = bench.sees()
    assert image.is_final
    assert set(np.unique(image.source)) >= {1, 2}
    assert error(image, scanned) < 1e-3


def test_the_stitcher_waits_for_the_last_refined_object(bench_with_refinement, scanned):
    bench = bench_with_refinement
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bench.ends()
    assert not bench.sees().is_final
    refine(bench)
    close(bench.scan, "refinement")
    bench.turns()
    image = bench.sees()
    assert image.is_final
    assert (image.source == 2).any()


def test_a_refined_object_that_is_not_finite_is_not_shown(bench_with_refinement, scanned):
    bench = bench_with_refinement
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bounds = refine(bench)
    bench.turns()
    before = bench.sees()
    refine(bench, version=2, object=np.full(bounds.shape, np.nan, np.complex64))
    bench.turns()
    assert bench.sees() is None
    refine(bench, version=3)
    bench.turns()
    image = bench.sees()
    assert image.epoch > before.epoch
    assert np.isfinite(image.object).all()


def test_a_snapshot_read_before_its_version_was_raised_keeps_its_error_bar(bench_with_refinement, scanned):
    bench = bench_with_refinement
    scanned.fill(bench.scan, np.arange(len(scanned)))
    bounds = refine(bench)
    bench.turns()
    still = bench.sees()
    moved = scanned.truth[:, : bounds.shape[1]] * np.exp(0.3j * np.indices(bounds.shape)[0])
    refine(bench, version=2, object=moved.astype(np.complex64))
    bench.turns()
    moving = bench.sees()
    refined = still.source == 2
    assert np.median(moving.sigma[refined]) > 10 * np.median(still.sigma[refined]), "it moved since"
    bench.scan.counters("refinement", writable=True)["version"] = 3  # of the file that has been read already
    bench.turns()
    np.testing.assert_array_equal(Watcher(bench.stitcher, b"late").asks().sigma, moving.sigma)


def test_new_frames_do_not_wait_for_a_large_change_of_refined_ground(
    bench_with_refinement, scanned, monkeypatch
):
    monkeypatch.setattr(picture, "AT_ONCE", 2)
    bench = bench_with_refinement
    scanned.fill(bench.scan, BETWEEN)
    bench.turns()
    bench.sees()
    refine(bench)
    bench.turns(1)
    bench.sees()
    assert len(bench.watcher.tiles) == 2
    scanned.fill(bench.scan, UPPER)
    bench.turns(1)
    assert bench.sees().frames_seen == len(BETWEEN) + len(UPPER)
    bench.turns(20)
    at_last = bench.sees()
    monkeypatch.undo()
    bench.restart()
    bench.turns()
    at_once = Watcher(bench.stitcher).asks()
    np.testing.assert_array_equal(at_last.source, at_once.source)
    assert error(at_last, scanned) == pytest.approx(error(at_once, scanned), abs=1e-3)


def test_refined_ground_is_taken_up_more_slowly_where_that_takes_long(
    bench_with_refinement, scanned, monkeypatch
):
    bench = bench_with_refinement

    def slow_read(*arguments):
        bench.worked.now += 0.2
        return read_news(*arguments)

    monkeypatch.setattr(picture, "read_news", slow_read)
    scanned.fill(bench.scan, BETWEEN)
    refine(bench)
    bench.turns(3)
    first = bench.sees().epoch
    refine(bench, version=2)
    bench.turns(3)
    assert bench.sees() is None
    bench.turns(round(0.2 / picture.TAKING_UP / INTERVAL_S))
    assert bench.sees().epoch > first


def test_without_a_network_the_refined_object_is_all_there_is(tmp_path, scanned):
    bench = Bench(tmp_path, scanned, uses_network=False)
    assert bench.stitcher.inputs == ("subscriber", "positions", "refinement")
    scanned.fill(bench.scan, np.arange(len(scanned)), "subscriber", "positions")
    bounds = refine(bench)
    bench.scan.mark("refinement", np.arange(len(scanned)), State.DONE)
    bench.turns()
    image = bench.sees()
    assert set(np.unique(image.source)) == {0, 2}
    assert (image.source == 2).sum() == bounds.shape[0] * bounds.shape[1]
    close(bench.scan, "subscriber", "positions", "refinement")
    bench.turns()
    final = bench.sees()
    assert final.is_final
    assert final.note == ""


class TiledBench:
    """A scan with its mosaic, whose refined object is handed over by the test, tile by tile."""

    def __init__(self, tmp_path):
        self.scanned = scanned = Sample(n_side=14)
        self.bench = Bench(tmp_path, scanned, uses_refinement=True)
        scanned.fill(self.bench.scan, np.arange(len(scanned)))
        self.bench.turns()
        (top, left), (n_rows, n_columns) = scanned.origin.tolist(), scanned.truth.shape
        self.bounds = Bounds(top, left, top + n_rows, left + n_columns)
        self.tiles, self.writer = tiles_on(self.bounds), SnapshotWriter(self.bench.scan.folder)
        assert len(self.tiles) == 4

    def hand_over(self, version, turn, which):
        object_ = (self.scanned.truth * np.exp(1j * turn)).astype(np.complex64)
        snapshot = snapshot_of(object_, self.bounds, n_updates=version)
        whole = self.bounds.padded(TILE_PX)
        padded = np.pad(object_, TILE_PX, constant_values=1)
        parts = [padded[tile_bounds(index).slices_in(whole)] for index in which]
        lit = np.full((TILE_PX, TILE_PX), 1e3, np.float32)
        self.writer.write(snapshot, [(index, (part, lit)) for index, part in zip(which, parts, strict=True)])
        self.bench.scan.counters("refinement", writable=True)["version"] = version
        self.bench.turns()
        return self.bench.sees()


def test_of_a_refined_object_only_tiles_that_changed_are_taken_up_and_sent(tmp_path):
    tiled = TiledBench(tmp_path)
    bench, bounds = tiled.bench, tiled.bounds
    before = tiled.hand_over(1, 0.0, tiled.tiles)
    assert error(before, tiled.scanned) < 1e-3
    after = tiled.hand_over(2, 0.3, [(0, 0)])
    rows, columns = tile_bounds((0, 0)).intersection(bounds).slices_in(bounds)
    changed = np.zeros(bounds.shape, bool)
    changed[rows, columns] = True
    turned = after.object * before.object.conj()
    np.testing.assert_allclose(np.angle(turned[changed]), 0.3, atol=1e-4)
    np.testing.assert_array_equal(after.object[~changed], before.object[~changed])
    assert (after.sigma[changed] > before.sigma[changed]).all(), "they have moved"
    assert {tuple(tile) for tile in bench.watcher.tiles.tolist()} == {
        (row, column) for row in range(4) for column in range(4)
    }, "sixteen live tiles lie in one of the object"
    assert after.epoch == 0.2


def test_tiles_that_become_one_file_while_they_are_looked_at_are_taken_up_from_there(tmp_path, monkeypatch):
    tiled = TiledBench(tmp_path)
    tiled.hand_over(1, 0.0, tiled.tiles)

    def read_and_lose(*arguments):
        news = read_news(*arguments)
        tiled.writer.finish()
        return news

    monkeypatch.setattr(picture, "read_news", read_and_lose)
    assert tiled.hand_over(2, 0.3, tiled.tiles[:3]).epoch == 0.2
