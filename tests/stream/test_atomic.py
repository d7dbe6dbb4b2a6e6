import os
from pathlib import Path

import pytest

from stream.atomic import DiskFullError, replacing, write_atomically


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    return path


def write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@pytest.mark.parametrize("writer", [write, write_atomically])
def test_a_file_is_replaced_as_a_whole_or_not_at_all(old, small_disk, writer):
    with pytest.raises(DiskFullError, match="no room for a"):
        writer(old, bytes(2_000_000))
    assert old.read_bytes() == b"old"
    assert [path.name for path in old.parent.iterdir()] == ["a"]
    writer(old, b"new")
    assert old.read_bytes() == b"new"
    assert [path.name for path in old.parent.iterdir()] == ["a"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_ends_the_writing_leaves_the_old_file_alone(old, interruption):
    with pytest.raises(interruption), replacing(old) as temporary:
        temporary.write_bytes(b"half")
        raise interruption
    assert old.read_bytes() == b"old"
    assert [path.name for path in old.parent.iterdir()] == ["a"]


def test_a_new_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(old, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_size, old.read_bytes()))
    )
    write(old, b"newer")
    assert synced == [(5, b"old")]


def test_a_symlink_stays_and_what_it_names_is_replaced(old, tmp_path):
    (tmp_path / "link").symlink_to("a")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert old.read_bytes() == b"new"


def test_another_name_of_the_file_keeps_the_old_content(old, tmp_path):
    (tmp_path / "hard").hardlink_to(old)
    write(old, b"new")
    assert (tmp_path / "hard").read_bytes() == b"old"


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, b"figures")
    assert os.read(reader, 100) == b"figures"
    assert pipe.is_fifo()
    os.close(reader)


def test_the_longest_name_there_can_be_is_written(tmp_path):
    write(tmp_path / ("ü" * 127), b"new")
    assert (tmp_path / ("ü" * 127)).read_bytes() == b"new"
