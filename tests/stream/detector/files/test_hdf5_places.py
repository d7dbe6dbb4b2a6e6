"""Where the frames of HDF5 files lie: links, virtual datasets, many data files; no file is locked."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from stream.detector.files.hdf5_series import Hdf5Series
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.files_feed import FRAMES, SHAPE, SILENCE_S, Read

N = 12


def write_source(path: Path, frames: np.ndarray, **layout) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("data", data=frames, chunks=(1, *frames.shape[1:]), **layout)


def write_virtual(path: Path, *selections: tuple[object, str, int]) -> None:
    """Each selection of the virtual dataset, the file that has it, and how many frames that will have."""
    layout = h5py.VirtualLayout((N, *SHAPE), "<u2", maxshape=(None, *SHAPE))
    for selection, source, n_frames in selections:
        rows = range(SHAPE[0])[selection[1]] if isinstance(selection, tuple) else range(SHAPE[0])
        layout[selection] = h5py.VirtualSource(source, "data", (n_frames, len(rows), SHAPE[1]))
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("entry/data/data", layout)


def test_frames_of_a_virtual_dataset_come_from_its_sources_as_these_are_written(tmp_path):
    """What is missing would read as zeros."""
    write_virtual(tmp_path / "scan.nxs", (np.s_[0::2], "a.h5", N // 2), (np.s_[1::2], "b.h5", N // 2))
    read = Read(tmp_path / "scan.nxs").after(1.0)
    assert read.messages == []
    write_source(tmp_path / "a.h5", FRAMES[0:N:2])
    assert read.after(1.0).numbers == list(range(0, N, 2))
    assert read.n_ends == 0
    write_source(tmp_path / "b.h5", FRAMES[1:N:2])
    read.after(1.0).assert_as(FRAMES, [*range(0, N, 2), *range(1, N, 2)])
    assert read.n_ends == 1


def test_blocks_of_a_virtual_dataset_keep_their_numbers(tmp_path):
    write_source(tmp_path / "a.h5", FRAMES[:5])
    write_source(tmp_path / "b.h5", FRAMES[5:N])
    write_virtual(tmp_path / "scan.nxs", (np.s_[:5], "a.h5", 5), (np.s_[5:], "b.h5", N - 5))
    read = Read(tmp_path / "scan.nxs").after(1.0)
    read.assert_as(FRAMES, range(N))
    assert read.n_ends == 1


def test_frames_put_together_from_modules_are_read_when_all_are_there(tmp_path, caplog):
    write_source(tmp_path / "top.h5", FRAMES[:N, :2])
    write_virtual(tmp_path / "scan.nxs", (np.s_[:, :2], "top.h5", N), (np.s_[:, 2:], "bottom.h5", N))
    read = Read(tmp_path / "scan.nxs", silence_s=20).after(6.0)
    assert read.messages == [] and "not all files that it is put together from are there" in caplog.text
    write_source(tmp_path / "bottom.h5", FRAMES[:N, 2:])
    read.after(2.0).assert_as(FRAMES, range(N))


def test_a_link_to_frames_elsewhere_is_not_followed_out_of_the_folder(tmp_path, caplog):
    (tmp_path / "here").mkdir()
    write_source(tmp_path / "there.h5", FRAMES[:N])
    with h5py.File(tmp_path / "here/scan.h5", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink(str(tmp_path / "there.h5"), "/data")
    assert Read(tmp_path / "here/scan.h5").after(6.0).messages == []
    assert "outside of the folder of the file" in caplog.text
    (tmp_path / "there.h5").rename(tmp_path / "here/there.h5")  # moved together: the link names the old place
    Read(tmp_path / "here/scan.h5").after(SILENCE_S + 2).assert_as(FRAMES, range(N))


def test_a_soft_link_to_itself_is_told_of(tmp_path, caplog):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data/data"] = h5py.SoftLink("/entry/data/data")
    assert Read(tmp_path / "scan.h5", dataset="entry/data/data").after(6.0).messages == []
    assert "is a link to itself" in caplog.text


def test_many_data_files_are_opened_once_each_and_closed(tmp_path, monkeypatch):
    """The time of a series grows with the number of its files, not with its square."""
    n_files = 40
    for index in range(n_files):
        with h5py.File(tmp_path / f"scan_data_{index + 1:06d}.h5", "w") as file:
            file["entry/data/data"] = FRAMES[2 * index : 2 * index + 2]
    with h5py.File(tmp_path / "scan_master.h5", "w") as file:
        file["entry/instrument/detector/detectorSpecific/nimages"] = 2 * n_files
        for index in range(n_files):
            name = f"data_{index + 1:06d}"
            file[f"entry/data/{name}"] = h5py.ExternalLink(f"scan_{name}.h5", "/entry/data/data")
    opened = []
    original = Hdf5Series._opened
    monkeypatch.setattr(
        Hdf5Series, "_opened", lambda series, path: opened.append(path) or original(series, path)
    )
    read = Read(tmp_path / "scan_master.h5").after(3.0)
    read.assert_as(FRAMES, range(2 * n_files))
    assert read.n_ends == 1
    assert len(opened) == n_files + 1


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="locks are looked up in /proc/locks")
def test_a_file_that_is_read_is_not_locked_and_one_that_its_writer_holds_is_read_when_it_is_closed(tmp_path):
    path = tmp_path / "scan.h5"
    clock = Clock()

    def has_lock() -> bool:
        return f":{path.stat().st_ino} " in Path("/proc/locks").read_text()

    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=FRAMES[:N], maxshape=(None, *SHAPE), chunks=(1, *SHAPE))
    series = Hdf5Series(path, "", clock)
    assert series.read(1, 1 << 20) == []
    clock.now += 1.0
    assert [each.number for each in series.read(1, 1 << 20)] == [0]
    assert not has_lock()  # though it is open: there is more to read
    extend = (
        "import sys, h5py\n"
        "with h5py.File(sys.argv[1], 'a') as file:\n"
        "    file['data'].resize(20, 0)\n"
        "    file['data'][12:] = 7\n"
        "    file.flush(); print('held', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", extend, os.fspath(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout.readline() == "held\n"
        numbers = [each.number for each in series.read(100, 1 << 20)]
        clock.now += 2.0
        assert has_lock() and series.read(100, 1 << 20) == []
        assert "does not share it" in series.waits_for
        writer.communicate("\n")
    for _ in range(3):
        clock.now += 1.0
        numbers += [each.number for each in series.read(100, 1 << 20)]
    assert numbers == list(range(1, 20))
