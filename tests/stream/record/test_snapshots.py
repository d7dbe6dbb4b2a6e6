import errno
from pathlib import Path

import numpy as np
import pytest

from operators.geometry import Bounds
from stream.atomic import DiskFullError
from stream.record.snapshot import FILE_NAME, read_snapshot, write_snapshot
from tests.helpers.stream.scans import snapshot_of

BOUNDS = Bounds(-7, 3, 13, 33)


def a_snapshot(**changes):
    rng = np.random.default_rng(0)
    object_ = (rng.normal(size=BOUNDS.shape) + 1j).astype(np.complex64)
    return snapshot_of(object_, BOUNDS, **{"error": 0.25, "error_history": (0.5, 0.25), **changes})


def test_a_snapshot_is_read_as_it_was_written(tmp_path):
    written = a_snapshot()
    write_snapshot(tmp_path, written)
    read = read_snapshot(tmp_path)
    for name in written.__slots__:
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

    def full(path, content):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match=r"no room for refined\.npz"):
        write_snapshot(tmp_path, a_snapshot(n_updates=20))
    assert read_snapshot(tmp_path).n_updates == 10
