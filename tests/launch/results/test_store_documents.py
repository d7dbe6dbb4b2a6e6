import h5py
import numpy as np
import pytest

pytest.importorskip("event_model", reason="the extra 'beamline' is not installed")

from event_model import schema_validators

from launch.results.store.documents import FRAMES_KEY, run_documents
from launch.results.store.frames import (
    FRAMES_DATASET,
    NUMBERS_DATASET,
    POSITIONS_DATASET,
    FramesFile,
    StoredFrames,
    write_frames,
)
from stream.record.scan import Scan, ScanHeader
from tests.helpers.launch.stored import (
    FRAMES,
    GEOMETRY,
    POSITIONS_M,
    RECORDED,
    beamline_documents,
    recorded_scan,
)


def frames_file(folder):
    return FramesFile(path=folder / "a.h5", n_frames=9, frame_shape=(8, 8), frame_dtype="<u2")


def header():
    return ScanHeader(series_id=1, series_uid="s1", frame_shape=(8, 8), frame_dtype="<u2", started_s=5.0)


JOINED = beamline_documents()[2:]  # the run had begun before anybody heard of it


@pytest.mark.parametrize(
    "documents", [[], beamline_documents(), beamline_documents(is_stopped=False), JOINED]
)
def test_what_is_stored_is_one_valid_run(tmp_path, documents):
    run = run_documents(header(), documents, frames_file(tmp_path), GEOMETRY)
    validators = {key.name: validator for key, validator in schema_validators.items()}
    for name, document in run:
        validators[name].validate(document)
    assert [name for name, _ in run].count("start") == [name for name, _ in run].count("stop") == 1
    assert (run[0][0], run[-1][0]) == ("start", "stop")
    assert run[-1][1]["run_start"] == run[0][1]["uid"]


def test_files_on_another_machine_are_left_out_and_nothing_else(tmp_path):
    run = run_documents(header(), beamline_documents(), frames_file(tmp_path))
    descriptors = {document["name"]: document for name, document in run if name == "descriptor"}
    assert list(descriptors["primary"]["data_keys"]) == ["stage-y"]
    assert "files" not in descriptors
    resources = {document["data_key"] for name, document in run if name == "stream_resource"}
    assert "eiger" not in resources
    assert FRAMES_KEY in resources
    assert [document["seq_num"] for name, document in run if name == "event_page"] == [[1, 2, 3]]


def test_frames_get_a_stream_of_their_own_or_the_primary_one(tmp_path):
    def streams(documents):
        run = run_documents(header(), documents, frames_file(tmp_path))
        return [document["name"] for name, document in run if name == "descriptor"]

    assert streams(beamline_documents()) == ["primary", "recorded"]
    assert streams([]) == ["primary"]


def test_a_run_that_was_not_stopped_says_so(tmp_path):
    def stop(documents):
        return run_documents(header(), documents, frames_file(tmp_path))[-1][1]

    unfinished = stop(beamline_documents(is_stopped=False))
    assert unfinished["exit_status"] == "abort"
    assert "no stop document" in unfinished["reason"]
    assert stop([])["exit_status"] == "success"


def test_every_recorded_frame_is_in_the_file_with_number_and_position(tmp_path):
    scan = recorded_scan(tmp_path / "scans")
    written = write_frames(scan, tmp_path)
    assert (written.n_frames, written.frame_shape, written.frame_dtype) == (9, (8, 8), "<u2")
    with h5py.File(written.path) as file:
        np.testing.assert_array_equal(file[FRAMES_DATASET], FRAMES[RECORDED])
        assert file[FRAMES_DATASET].chunks == (1, 8, 8)
        assert file[NUMBERS_DATASET][()].tolist() == RECORDED
        expected = np.where(np.arange(10)[:, None] < 9, POSITIONS_M, np.nan)[RECORDED]
        np.testing.assert_array_equal(file[POSITIONS_DATASET], expected)


def test_a_second_scan_of_the_same_name_has_its_own_file(tmp_path):
    first, second = (write_frames(recorded_scan(tmp_path / run), tmp_path).path for run in ("run1", "run2"))
    assert first != second
    assert first.exists()
    assert second.exists()


def test_a_scan_without_frames_is_a_run_without_a_stream(tmp_path):
    scan = Scan.create(tmp_path / "0000-empty", header())
    written = write_frames(scan, tmp_path)
    assert written.n_frames == 0
    assert [name for name, _ in run_documents(header(), [], written)] == ["start", "stop"]


class Catalogue:
    """An array that counts how often it is asked."""

    shape, dtype = FRAMES.shape, FRAMES.dtype

    def __init__(self):
        self.n_requests = 0

    def __getitem__(self, rows):
        self.n_requests += 1
        return FRAMES[rows]


@pytest.mark.parametrize(
    "index", [0, 9, -1, slice(2, 7), slice(None, None, 3), [4, 1, 1], np.arange(10) % 2 == 0, slice(3, 3)]
)
def test_stored_frames_are_indexed_like_an_array(index):
    np.testing.assert_array_equal(StoredFrames(Catalogue())[index], FRAMES[index])


def test_going_through_stored_frames_one_by_one_asks_once_per_block():
    catalogue = Catalogue()
    np.testing.assert_array_equal(np.stack(list(StoredFrames(catalogue))), FRAMES)
    assert catalogue.n_requests == 1


def test_a_stored_frame_that_does_not_exist_is_an_index_error():
    with pytest.raises(IndexError):
        StoredFrames(Catalogue())[10]
