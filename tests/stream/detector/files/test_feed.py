"""Frames out of files as detectors write them: while they grow, finished, incomplete and damaged."""

import os

import h5py
import numpy as np
import pytest
import tifffile

from stream.detector.dectris import encode_frame
from stream.detector.files.writers import (
    FILE_SENDERS,
    FRAMES_PER_FILE,
    DectrisFileSender,
    Hdf5Sender,
    TiffSender,
    create_frames,
)
from stream.detector.protocol import DetectorMessageError, EndMessage
from stream.detector.simulator import ReplayConfig, series_messages
from tests.helpers.stream.files_feed import FRAMES, GRACE_S, SHAPE, SILENCE_S, TOLD, N, Read, write


@pytest.mark.parametrize("kind", FILE_SENDERS)
def test_a_finished_series_is_read_whole_and_ends(tmp_path, kind):
    write(FILE_SENDERS[kind](tmp_path))
    read = Read(tmp_path).after(SILENCE_S + 2)
    read.assert_as(FRAMES, range(N))
    (start,) = read.starts
    assert start.series_unique_id.startswith("scan-")
    assert start.frame_shape == SHAPE
    assert read.n_ends == 1
    if kind != "tiff":
        assert start.incident_energy == TOLD["energy_ev"]
        assert start.detector_translation == (0.0, 0.0, TOLD["detector_distance_m"])
        assert start.pixel_size_x == start.pixel_size_y == TOLD["detector_pixel_m"]


@pytest.mark.parametrize("kind", FILE_SENDERS)
def test_a_series_is_read_while_it_is_written_and_each_frame_once(tmp_path, kind):
    rest = write(FILE_SENDERS[kind](tmp_path), until=FRAMES_PER_FILE + 10)
    read = Read(tmp_path).after(1.0)
    n_read = len(read.numbers)
    assert n_read >= FRAMES_PER_FILE
    assert read.n_ends == 0
    rest()
    read.after(SILENCE_S + 2).assert_as(FRAMES, range(N))
    assert (len(read.starts), read.n_ends) == (1, 1)


@pytest.mark.parametrize("compression", ["bslz4", "bszstd", "lz4", ""])
@pytest.mark.parametrize("dtype", ["<u1", "<u2", "<u4"])
def test_chunks_are_taken_as_they_lie_in_the_file(tmp_path, dtype, compression):
    frames = FRAMES[:3].astype(dtype)
    sender = Hdf5Sender(tmp_path)
    config = ReplayConfig(series_uid="scan", compression=compression)
    for _, message in series_messages(frames, config, 3):
        sender.send(message, 0.0)
    read = Read(tmp_path).after(1.0)
    read.assert_as(frames, range(3))
    assert {image.frame().compression for image in read.messages[1:-1]} == {compression}


@pytest.mark.parametrize("layout", [{}, {"chunks": (2, *SHAPE)}, {"compression": "gzip"}, {"dtype": ">u2"}])
def test_what_is_stored_otherwise_is_read_by_the_library(tmp_path, layout):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file.create_dataset("measurement/eiger", data=FRAMES[:5], **layout)
    read = Read(tmp_path / "scan.nxs").after(SILENCE_S + 1)
    read.assert_as(FRAMES, range(5))
    assert read.messages[1].frame().dtype == "<u2"


def test_the_frames_of_a_nexus_file_are_those_that_its_attributes_lead_to(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file["entry/first/data"], file["entry/second/counts"] = np.zeros((2, 3, 4), "u2"), FRAMES[:4]
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "second"
        file["entry/second"].attrs["signal"] = "counts"
    Read(tmp_path / "scan.nxs").after(SILENCE_S + 1).assert_as(FRAMES, range(4))


def test_of_several_stacks_one_has_to_be_named(tmp_path, caplog):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["a"], file["b"] = np.zeros((2, 3, 4), "u2"), FRAMES[:4]
    assert Read(tmp_path / "scan.h5").after(SILENCE_S + 1).messages == []
    assert "found a, b: name it in detector.dataset" in caplog.text
    Read(tmp_path / "scan.h5", dataset="b").after(SILENCE_S + 1).assert_as(FRAMES, range(4))


def test_a_file_that_is_not_there_yet_is_waited_for_and_told_of(tmp_path, caplog):
    read = Read(tmp_path / "scan.h5").after(6.0)
    assert f"frames wait: {tmp_path / 'scan.h5'}" in caplog.text
    write(Hdf5Sender(tmp_path))
    read.after(1.0).assert_as(FRAMES, range(N))


def test_room_that_is_not_written_yet_is_waited_for_and_what_was_overtaken_is_taken_later(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w", libver="latest") as file:
        frames = file.create_dataset("data", (6, *SHAPE), "<u2", chunks=(1, *SHAPE))
        file.swmr_mode = True
        frames[:2] = FRAMES[:2]
        frames[3] = FRAMES[3]
        frames.flush()
        read = Read(tmp_path / "scan.h5").after(0.5)
        assert read.numbers == [0, 1, 3]
        frames[2] = FRAMES[2]
        frames.flush()
        assert read.after(0.5).numbers == [0, 1, 3, 2]
    read.after(SILENCE_S + 1)
    assert (read.numbers, read.n_ends) == ([0, 1, 3, 2], 1)


def test_a_data_file_that_is_missing_costs_its_frames_alone(tmp_path):
    write(DectrisFileSender(tmp_path))
    (tmp_path / "scan_data_000002.h5").unlink()
    read = Read(tmp_path / "scan_master.h5").after(SILENCE_S + 2)
    read.assert_as(FRAMES, [*range(FRAMES_PER_FILE), *range(2 * FRAMES_PER_FILE, N)])
    assert read.starts[0].number_of_images == N
    assert read.n_ends == 1


def test_a_number_that_is_missing_among_tiffs_is_missing_and_one_that_comes_late_is_taken(tmp_path):
    write(TiffSender(tmp_path), FRAMES[:8], drop=frozenset({3}))
    read = Read(tmp_path).after(1.0)
    assert read.numbers == [0, 1, 2, 4, 5, 6, 7]
    write(TiffSender(tmp_path / "late"), FRAMES[:8])
    (tmp_path / "late/scan/frame_000004.tif").rename(tmp_path / "scan/frame_000004.tif")
    read.after(1.0).assert_as(FRAMES, [0, 1, 2, 4, 5, 6, 7, 3])


def test_half_a_tiff_is_waited_for_and_what_never_is_one_is_refused(tmp_path):
    write(TiffSender(tmp_path), FRAMES[:3])
    half, content = tmp_path / "scan/frame_000002.tif", (tmp_path / "scan/frame_000002.tif").read_bytes()
    half.write_bytes(content[:20])
    (tmp_path / "scan/frame_000004.tif").write_bytes(b"nothing of the kind")
    read = Read(tmp_path).after(1.0)
    assert sorted(read.numbers) == [0, 2]
    half.write_bytes(content)
    read.after(3.0)
    assert sorted(read.numbers) == [0, 1, 2]
    assert len(read.errors) == 1 and "frame_000004.tif is no TIFF of one frame" in read.errors[0]


@pytest.mark.parametrize("pixels", [np.zeros((2, 3, 4), "u2"), np.zeros((3, 4), "f4")])
def test_a_tiff_of_something_else_is_refused_by_what_it_holds(tmp_path, pixels):
    write(TiffSender(tmp_path), FRAMES[:2])
    tifffile.imwrite(tmp_path / "scan/frame_000003.tif", pixels, photometric="minisblack")
    read = Read(tmp_path).after(3.0)
    assert read.numbers == [0, 1]
    assert len(read.errors) == 1 and f"frame_000003.tif holds {pixels.dtype}" in read.errors[0]


def test_frames_of_whole_numbers_alone_are_taken_from_hdf5(tmp_path, caplog):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data/data"] = FRAMES[:3].astype("f4")
    assert Read(tmp_path, dataset="entry/data/data").after(6.0).messages == []
    assert "wanted whole numbers (frame, row, col), found float32 (3, 6, 9)" in caplog.text


def test_a_folder_that_cannot_be_listed_is_told_of(tmp_path, caplog, monkeypatch):
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert Read(tmp_path).after(6.0).messages == []
    assert f"{tmp_path} cannot be listed: Permission denied" in caplog.text


@pytest.mark.parametrize("kind", ["hdf5", "dectris-files"])
def test_files_with_wrong_bytes_never_end_a_feed(tmp_path, kind):
    """Whatever is in them, it reads on or says what is wrong; what it takes are frames of that number."""
    rng = np.random.default_rng(0)
    write(FILE_SENDERS[kind](tmp_path / "right"), FRAMES[:6])
    (tmp_path / "wrong").mkdir()
    for _ in range(40):
        for path in (tmp_path / "right").iterdir():
            content = bytearray(path.read_bytes())
            content[rng.integers(1500 if rng.random() < 0.5 else len(content))] = rng.integers(256)
            cut = rng.integers(len(content)) if rng.random() < 0.1 else len(content)
            (tmp_path / "wrong" / path.name).write_bytes(content[:cut])
        read = Read(tmp_path / "wrong", silence_s=0.6, end_grace_s=0.1).after(1.0)
        assert set(read.numbers) <= set(range(6))
        read.feed.close()


def test_a_damaged_chunk_is_refused_and_the_others_are_taken(tmp_path):
    write(Hdf5Sender(tmp_path), FRAMES[:5])
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        file["entry/data/data"].id.write_direct_chunk((2, 0, 0), b"\x00" * 16)
    read = Read(tmp_path).after(1.0)
    assert read.numbers == [0, 1, 2, 3, 4]  # whoever decodes it finds out
    with pytest.raises(DetectorMessageError):
        read.messages[3].frame().decode()


def test_a_truncated_file_is_told_of_and_the_next_one_is_taken(tmp_path, caplog):
    write(Hdf5Sender(tmp_path), FRAMES[:5], name="first")
    path = tmp_path / "first.h5"
    path.write_bytes(path.read_bytes()[:600])
    read = Read(tmp_path).after(SILENCE_S + 1)
    assert read.messages == [] and "first.h5: its end is missing" in caplog.text
    write(Hdf5Sender(tmp_path), FRAMES[:5], name="second")
    read.after(SILENCE_S + 1).assert_as(FRAMES, range(5))


def test_a_file_that_is_removed_underway_ends_its_series(tmp_path):
    write(TiffSender(tmp_path), FRAMES[:4])
    read = Read(tmp_path / "scan").after(0.5)
    for path in (tmp_path / "scan").iterdir():
        path.unlink()
    read.after(SILENCE_S + 1)
    assert (read.numbers, read.n_ends) == ([0, 1, 2, 3], 1)


def test_of_a_pattern_each_file_is_a_series_and_old_ones_are_left_alone_unless_wanted(tmp_path):
    write(Hdf5Sender(tmp_path), FRAMES[:3], name="a")
    write(Hdf5Sender(tmp_path), FRAMES[3:5], name="b")
    pattern = tmp_path / "*.h5"
    every = Read(pattern).after(2.0)
    assert [start.key.rpartition("-")[0] for start in every.starts] == ["a", "b"]
    new = Read(pattern, takes_old=False, seconds_later=100)
    assert new.after(2.0).messages == []
    write(Hdf5Sender(tmp_path), FRAMES[5:9], name="c")
    assert [start.key.rpartition("-")[0] for start in new.after(2.0).starts] == ["c"]
    assert (every.after(2.0).n_ends, new.n_ends) == (3, 1)


def test_a_series_without_an_end_is_over_when_the_next_one_has_begun_and_nothing_more_comes(tmp_path):
    first = write(Hdf5Sender(tmp_path), FRAMES[:8], name="a", until=5)
    read = Read(tmp_path).after(0.5)
    second = write(Hdf5Sender(tmp_path), FRAMES[:8], name="b", until=5)
    read.after(GRACE_S + 2)
    assert (len(read.starts), read.n_ends) == (2, 1)
    first(), second()


def test_other_content_under_the_same_name_is_another_series_and_the_same_is_not(tmp_path):
    keys = []
    for frames in (FRAMES[:3], FRAMES[:3], FRAMES[3:6]):
        write(Hdf5Sender(tmp_path), frames)
        keys += [start.key for start in Read(tmp_path).after(1.0).starts]
        (tmp_path / "scan.h5").unlink()
    assert keys[0] == keys[1] != keys[2]


def test_a_file_that_is_written_anew_under_its_name_is_the_next_series(tmp_path):
    write(Hdf5Sender(tmp_path), FRAMES[:3])
    read = Read(tmp_path / "scan.h5").after(2.0)
    assert (read.numbers, read.n_ends) == ([0, 1, 2], 1)
    (tmp_path / "scan.h5").touch()  # is the same still
    assert read.after(2.0).numbers == [0, 1, 2]
    (tmp_path / "scan.h5").unlink()
    write(Hdf5Sender(tmp_path), FRAMES[3:7])
    read.after(2.0)
    assert (read.numbers, len(read.starts), read.n_ends) == ([0, 1, 2, 0, 1, 2, 3], 2, 2)


def test_a_file_that_takes_the_place_of_one_that_is_being_read_is_the_next_series(tmp_path):
    write(Hdf5Sender(tmp_path), FRAMES[:8], until=5)
    read = Read(tmp_path / "scan.h5").after(1.0)
    (tmp_path / "scan.h5").unlink()
    write(Hdf5Sender(tmp_path), FRAMES[3:7])
    read.after(SILENCE_S + 2)
    assert (len(read.starts), read.n_ends) == (2, 2)
    assert read.numbers[-4:] == [0, 1, 2, 3]


def test_a_process_that_follows_one_that_died_goes_on_where_frames_are_missing(tmp_path):
    write(Hdf5Sender(tmp_path))
    key = Read(tmp_path).after(1.0).starts[0].key
    read = Read(tmp_path)
    read.feed.resume(key, 200, 150)
    read.after(2.0)
    again = [number for number in read.numbers if number < 150]
    assert len(again) <= 256 and set(read.numbers) >= set(range(150, N))
    assert read.n_ends == 1


def test_a_series_that_is_gone_when_it_is_to_be_resumed_is_ended(tmp_path):
    read = Read(tmp_path)
    read.feed.resume("scan-01234567", 20, 20)
    read.after(SILENCE_S + 1)
    (end,) = read.messages
    assert end == EndMessage(series_id=0, series_unique_id="scan-01234567")


def test_nothing_is_changed_or_locked(tmp_path):
    rest = write(Hdf5Sender(tmp_path), until=20)
    read = Read(tmp_path).after(1.0)
    before = (tmp_path / "scan.h5").read_bytes()
    read.after(1.0)
    assert (tmp_path / "scan.h5").read_bytes() == before
    rest()
    read.after(1.0)
    with h5py.File(tmp_path / "scan.h5", "r+") as file:  # nobody holds it
        assert file["entry/data/data"].shape == (N, *SHAPE)


def test_a_look_at_a_long_file_costs_no_more_than_one_at_a_short_one(tmp_path):
    """Counted in what is asked of the file, not in time."""
    with h5py.File(tmp_path / "scan.h5", "w", libver="latest") as file:
        create_frames(file, "data", encode_frame(FRAMES[0], ""))
        file["data"].resize(3000, axis=0)
        for number in range(3000):
            file["data"].id.write_direct_chunk((number, 0, 0), FRAMES[0].tobytes())
        file.swmr_mode = True
        read = Read(tmp_path / "scan.h5")
        while len(read.numbers) < 3000:
            read.after(0.1)
        asked = []
        original = read.feed._open._read
        read.feed._open._read = lambda *given, **named: asked.append(1) or original(*given, **named)
        read.after(1.0)
        assert 0 < len(asked) <= 60


def test_a_rectangular_frame_of_32_bits_keeps_its_shape_through_tiffs(tmp_path):
    frames = FRAMES[:2].astype("<u4") * 100_000
    write(TiffSender(tmp_path), frames)
    Read(tmp_path).after(SILENCE_S + 1).assert_as(frames, range(2))
