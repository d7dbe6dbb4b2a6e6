import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stream.atomic import DiskFullError
from stream.record.columns import Column

ROOT = Path(__file__).parents[3]
# Segments of 4096 frames and, for frames of 128 kB, of 128.
KINDS = {"bytes": ("|u1", ()), "positions": ("<f8", (2,)), "frames": ("<u2", (256, 256))}
N = {"bytes": 10_000, "positions": 10_000, "frames": 280}


def values_of(numbers, dtype, shape):
    """Values that say which frame they belong to."""
    columns = np.asarray(numbers).reshape(-1, *[1] * len(shape))
    return np.broadcast_to(columns % 251, (len(columns), *shape)).astype(dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_values_written_in_any_order_are_read_in_any_order_across_segments(tmp_path, kind):
    dtype, shape = KINDS[kind]
    rng = np.random.default_rng(0)
    column = Column.create(tmp_path / kind, dtype, shape)
    assert N[kind] > 2 * column.segment_frames
    for numbers in np.array_split(rng.permutation(N[kind]), 5):
        column.write(numbers, values_of(numbers, dtype, shape))
    asked = rng.integers(0, N[kind], 50)
    np.testing.assert_array_equal(column.read(asked), values_of(asked, dtype, shape))
    np.testing.assert_array_equal(column.head(N[kind]), column.read(np.arange(N[kind])))


def test_the_frames_around_a_segment_boundary_are_neighbours(tmp_path):
    column = Column.create(tmp_path / "bytes", "|u1")
    edge = column.segment_frames
    column.write([edge - 1, edge], [7, 8])
    np.testing.assert_array_equal(column.read([edge - 2, edge - 1, edge, edge + 1]), [0, 7, 8, 0])
    np.testing.assert_array_equal(column.head(edge + 1)[-2:], [7, 8])


def test_one_value_is_stored_for_all_frames_named(tmp_path):
    column = Column.create(tmp_path / "positions", "<f8", (2,))
    column.write([3, 1], 2.5)
    column.write(5, [1.0, 2.0])
    np.testing.assert_array_equal(column.read([1, 2, 3, 5]), [[2.5, 2.5], [0, 0], [2.5, 2.5], [1, 2]])


def test_what_is_not_allocated_reads_as_zero_and_allocates_nothing(tmp_path):
    Column.create(tmp_path / "bytes", "|u1").write(0, 9)
    reader = Column(tmp_path / "bytes")
    assert reader.read([0, 10**9]).tolist() == [9, 0]
    assert reader.head(20_000).sum() == 9
    assert len(list((tmp_path / "bytes").glob("*.bin"))) == 1


def test_no_frames_are_no_work(tmp_path):
    column = Column.create(tmp_path / "bytes", "|u1")
    column.write([], [])
    assert column.read([]).shape == column.head(0).shape == (0,)
    assert not list((tmp_path / "bytes").glob("*.bin"))


def test_a_negative_frame_number_is_refused(tmp_path):
    column = Column.create(tmp_path / "bytes", "|u1")
    column.write([0, 1], [1, 2])
    for use in (column.read, lambda numbers: column.write(numbers, 0)):
        with pytest.raises(ValueError, match="frame number -1 in column bytes"):
            use([0, -1])
    assert column.head(2).tolist() == [1, 2]


def test_what_is_read_is_a_copy(tmp_path):
    column = Column.create(tmp_path / "bytes", "|u1")
    column.write(0, 1)
    column.read(0)[:] = 5
    column.head(1)[:] = 5
    assert column.read(0) == 1


def test_a_column_nobody_created_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        Column(tmp_path / "nothing")


def test_a_reader_cannot_write(tmp_path):
    Column.create(tmp_path / "bytes", "|u1").write(0, 1)
    reader = Column(tmp_path / "bytes")
    with pytest.raises(ValueError, match="read-only"):
        reader.write(0, 2)
    assert reader.read(0) == 1


def test_a_second_writer_goes_on_where_the_first_stopped(tmp_path):
    Column.create(tmp_path / "bytes", "|u1").write(np.arange(5000), 3)
    again = Column.create(tmp_path / "bytes", "|u1")
    again.write(5000, 4)
    assert (again.head(5001) == [3] * 5000 + [4]).all()


def test_a_second_writer_of_another_shape_is_refused(tmp_path):
    Column.create(tmp_path / "patches", "<c8", (64, 64))
    with pytest.raises(ValueError, match=r"complex64 of shape \(64, 64\).*wanted <c8 of shape \(32, 32\)"):
        Column.create(tmp_path / "patches", "<c8", (32, 32))


READER = """
import sys
from pathlib import Path
from pathlib import Path
from stream.record.columns import Column
column = Column(Path(sys.argv[1]))
for line in sys.stdin:
    print(*column.read([int(word) for word in line.split()]), flush=True)
"""


def test_a_reader_in_another_process_sees_the_column_grow(tmp_path):
    column = Column.create(tmp_path / "bytes", "|u1")
    column.write(0, 1)
    command = [sys.executable, "-c", READER, str(tmp_path / "bytes")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, cwd=ROOT) as reader:
        assert reader.stdin and reader.stdout

        def ask(numbers):
            reader.stdin.write(f"{numbers}\n")
            reader.stdin.flush()
            return reader.stdout.readline().split()

        assert ask("0 9000") == ["1", "0"]
        column.write([1, 9000], [2, 3])
        assert ask("0 1 9000") == ["1", "2", "3"]
        reader.stdin.close()


def test_a_segment_that_does_not_fit_is_refused_by_name_and_leaves_nothing(tmp_path, small_disk):
    column = Column.create(tmp_path / "frames", "<u2", (512, 512))
    with pytest.raises(DiskFullError, match="no room for 34 MB of column 'frames'") as refused:
        column.write(0, 1)
    assert refused.value.filename == str(tmp_path / "frames")
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["column.json"]


def test_a_disk_that_fills_in_the_middle_loses_nothing_and_is_used_again_when_there_is_room(
    tmp_path, monkeypatch
):
    column = Column.create(tmp_path / "bytes", "|u1")
    n = column.segment_frames
    column.write(np.arange(n), 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fail_with(errno.ENOSPC))
        with pytest.raises(DiskFullError):
            column.write(np.arange(n - 1, n + 1), 2)
        assert (column.head(n + 1) == [1] * n + [0]).all(), "either all frames of a write are stored or none"
        column.write(0, 5)
    column.write(n, 2)
    assert column.read([0, 1, n]).tolist() == [5, 1, 2]


def test_another_failure_of_the_disk_keeps_its_name(tmp_path, monkeypatch):
    column = Column.create(tmp_path / "bytes", "|u1")
    monkeypatch.setattr(os, "posix_fallocate", fail_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output") as refused:
        column.write(0, 1)
    assert not isinstance(refused.value, DiskFullError)


def fail_with(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("shape", [(), (8,), (32, 32)])
def test_values_put_as_bytes_are_seen_through_every_map(tmp_path: Path, shape: tuple[int, ...]) -> None:
    column = Column.create(tmp_path / "values", "<f8", shape)
    column.reserve(1)
    reader = Column(tmp_path / "values")
    assert not reader.read(0).any()
    edge = column.segment_frames - 1
    for first, values in ((0, [1.5]), (edge, [2.5, 3.5, 4.5]), (1, [5.5])):
        column.put(first, [np.full(shape, value).data for value in values])
        for number, value in enumerate(values, first):
            assert (reader.read(number)[0] == value).all()
    column.write([0, edge], np.full((2, *shape), 6.5))
    assert (reader.read([0, edge]) == 6.5).all()
    assert (reader.read([1, edge + 2])[:, ...] == np.reshape([5.5, 4.5], (2, *[1] * len(shape)))).all()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_numbers_given_as_a_range_mean_the_same(tmp_path: Path, step: int) -> None:
    by_range, by_number = (Column.create(tmp_path / name, "<f8", (2,)) for name in "ab")
    edge = by_range.segment_frames
    numbers = range(edge - 2 * step - 1, 2 * edge + 3 * step, step)
    values = np.random.default_rng(step).normal(size=(len(numbers), 2))
    for column, written in ((by_range, numbers), (by_number, np.array(numbers))):
        column.write(written, values)
        column.write(written[:3], 7.0)
        column.write(written[:0], values[:0])
    wide = range(0, 4 * edge, 1)
    np.testing.assert_array_equal(by_range.read(wide), by_number.read(np.array(wide)))
    np.testing.assert_array_equal(by_range.read(numbers), by_number.read(np.array(numbers)))
    assert by_range.read(range(0)).shape == (0, 2)
    assert by_range.n_room == by_number.n_room
    with pytest.raises(ValueError, match="frame number -1"):
        by_range.read(range(-1, 3))


def test_one_value_is_read_from_its_file_without_a_map(tmp_path):
    writer = Column.create(tmp_path / "c", "<f4", (40, 40))
    numbers = np.array([0, writer.segment_frames - 1, writer.segment_frames])
    values = np.random.default_rng(0).normal(size=(3, 40, 40)).astype("<f4")
    writer.write(numbers, values)
    reader = Column(tmp_path / "c")
    for number, value in zip(numbers.tolist(), values, strict=True):
        np.testing.assert_array_equal(reader.get(number), value)
    assert not reader.get(1).any()
    assert not reader.get(10 * writer.segment_frames).any(), "not allocated"
