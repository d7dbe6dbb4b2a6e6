import dataclasses
import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from operators.geometry import Bounds
from stream.atomic import DiskFullError
from stream.record import snapshot as snapshots
from stream.record.snapshot import (
    FILE_NAME,
    TILE_PX,
    SnapshotWriter,
    read_error,
    read_news,
    read_snapshot,
    tile_bounds,
    tiles_on,
    tiles_under,
    write_snapshot,
)
from tests.helpers.stream.scans import snapshot_of
from tests.helpers.stream.snapshots import TILES, all_alike, state_of

BOUNDS = Bounds(-7, 3, 13, 33)


def a_snapshot(**changes):
    rng = np.random.default_rng(0)
    object_ = (rng.normal(size=BOUNDS.shape) + 1j).astype(np.complex64)
    return snapshot_of(object_, BOUNDS, **{"error": 0.25, "error_history": (0.5, 0.25), **changes})


def test_a_snapshot_is_read_as_it_was_written(tmp_path):
    written = a_snapshot()
    write_snapshot(tmp_path, written)
    read = read_snapshot(tmp_path)
    for name in (field.name for field in dataclasses.fields(written)):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert type(getattr(read, name)) is type(getattr(written, name))


def test_before_the_first_there_is_none(tmp_path):
    assert read_snapshot(tmp_path) is None


def test_an_error_that_is_not_known_yet_stays_unknown(tmp_path):
    write_snapshot(tmp_path, a_snapshot(error=float("nan"), error_history=()))
    read = read_snapshot(tmp_path)
    assert np.isnan(read.error)
    assert read.error_history == ()


def test_a_newer_one_takes_the_place_of_the_older(tmp_path):
    for n_updates in (10, 20):
        write_snapshot(tmp_path, a_snapshot(n_updates=n_updates))
    assert read_snapshot(tmp_path).n_updates == 20
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_without_room_the_older_one_stays(tmp_path, monkeypatch):
    write_snapshot(tmp_path, a_snapshot(n_updates=10))

    def full(file, **arrays):
        file.write(b"the beginning")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(snapshots.np, "savez", full)
    with pytest.raises(DiskFullError, match=r"no room for refined\.npz"):
        write_snapshot(tmp_path, a_snapshot(n_updates=20))
    assert read_snapshot(tmp_path).n_updates == 10
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


WRITES_FOR_EVER = """
import sys
from pathlib import Path
from stream.record.snapshot import SnapshotWriter
from tests.helpers.stream.snapshots import all_alike
writer, n = SnapshotWriter(Path(sys.argv[1])), int(sys.argv[2])
while True:
    n += 1
    writer.write(*all_alike(n))
"""


def values(news):
    return {index: object_[0, 0].real for index, (object_, _) in news.tiles.items()}


def test_tiles_that_changed_are_read_and_the_others_stay(tmp_path):
    writer = SnapshotWriter(tmp_path)
    assert read_news(tmp_path) is None
    writer.write(*all_alike(1))
    first = read_news(tmp_path)
    assert (first.n_tiles, values(first)) == (len(TILES), dict.fromkeys(TILES, 1))
    for n in range(2, 9):
        writer.write(*all_alike(n, TILES[:2]))
    news = read_news(tmp_path, first.version)
    assert values(news) == dict.fromkeys(TILES[:2], 8)
    assert news.state.n_updates == 8
    whole = read_snapshot(tmp_path)
    for index in TILES:
        shared = tile_bounds(index).intersection(whole.bounds)
        part = whole.object[shared.slices_in(whole.bounds)]
        assert (part == (8 if index in TILES[:2] else 1)).all()
    n_slots = (tmp_path / "refined" / "tiles.bin").stat().st_size // (12 * TILE_PX**2)
    assert n_slots <= 32, "slots are used again"


def test_a_writer_that_dies_while_it_writes_leaves_the_state_before(tmp_path):
    SnapshotWriter(tmp_path).write(*all_alike(1))

    def and_dies():
        yield from all_alike(2)[1][:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SnapshotWriter(tmp_path).write(state_of(2), and_dies())
    news = read_news(tmp_path)
    assert (news.state.n_updates, values(news)) == (1, dict.fromkeys(TILES, 1))
    SnapshotWriter(tmp_path).write(*all_alike(3, TILES[:1]))
    assert values(read_news(tmp_path)) == dict.fromkeys(TILES, 1) | {TILES[0]: 3}


def test_what_is_read_is_of_one_state_also_while_it_is_written_and_when_the_writer_is_killed(tmp_path):
    root, n = Path(__file__).parents[3], 0
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path), str(n)], cwd=root)
        try:
            deadline = time.monotonic() + 60
            while (news := read_news(tmp_path)) is None or news.state.n_updates == n:
                assert time.monotonic() < deadline
            for _ in range(20):
                news = read_news(tmp_path)
                assert set(values(news).values()) == {news.state.n_updates}
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        news = read_news(tmp_path)
        n = news.state.n_updates
        assert values(news) == dict.fromkeys(TILES, n)


def test_tiles_that_are_replaced_while_they_are_read_are_read_again(tmp_path, monkeypatch):
    writer, read = SnapshotWriter(tmp_path), snapshots._read_slot
    writer.write(*all_alike(1))

    def is_overtaken(file, slot):
        monkeypatch.setattr(snapshots, "_read_slot", read)
        for n in (2, 3, 4):
            writer.write(*all_alike(n))
        return read(file, slot)

    monkeypatch.setattr(snapshots, "_read_slot", is_overtaken)
    assert values(read_news(tmp_path)) == dict.fromkeys(TILES, 4)


def test_when_all_is_done_one_file_takes_the_place_of_the_tiles(tmp_path):
    writer = SnapshotWriter(tmp_path)
    writer.write(*all_alike(1))
    before = read_snapshot(tmp_path)
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert read_news(tmp_path) is None
    after = read_snapshot(tmp_path)
    for name in (field.name for field in dataclasses.fields(before)):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert read_error(tmp_path) == before.error


def test_a_full_disk_is_called_by_its_name_and_what_was_published_stays(tmp_path, monkeypatch):
    writer = SnapshotWriter(tmp_path)
    writer.write(*all_alike(1))

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(snapshots.os, "posix_fallocate", full)
    with pytest.raises(DiskFullError, match="no room for tiles of the refined object"):
        for n in range(2, 6):
            writer.write(*all_alike(n))
    news = read_news(tmp_path)
    assert values(news) == dict.fromkeys(TILES, news.state.n_updates)


def test_the_tiles_under_windows_are_all_that_share_a_pixel_with_them():
    rng = np.random.default_rng(0)
    for n_pixels in (16, 64, 100):
        corners = rng.integers(-200, 200, (5, 2))
        expected = {
            index for corner in corners for index in tiles_on(Bounds.of_windows(corner[None], n_pixels))
        }
        assert set(tiles_under(corners, n_pixels)) == expected
    assert tiles_under(np.zeros((0, 2), np.int64), 16) == []
