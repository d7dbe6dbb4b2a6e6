"""Scans as a crash or a power cut leaves them: what is used is as it was written, the rest is set aside."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.documents.codec import RECORD_FILE, append_records, as_record, read_documents, repair_record
from stream.durability import keeper
from stream.durability.keeper import Keeper
from stream.durability.mend import mend_scans
from stream.record import columns
from stream.record.account import time_to_image_s
from stream.record.calibration import read_calibration, write_calibration
from stream.record.columns import Column, DamagedScanError
from stream.record.error_curve import EpochError, read_error_curve, write_error_curve
from stream.record.probe import publish_probe
from stream.record.scan import Scan, State, scans_in
from stream.record.snapshot import SnapshotWriter, read_snapshot, write_snapshot
from stream.wire.messages import CalibrationRecord
from tests.helpers.stream.power import cut_the_power
from tests.helpers.stream.scans import close, infer, make_scan, place, record, states
from tests.helpers.stream.snapshots import all_alike

FRAMES = "columns/frames/column.json"
N = 40


def never(scan: Scan) -> bool:
    return False


def always(scan: Scan) -> bool:
    return True


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has 64 frames."""
    monkeypatch.setattr(columns, "SEGMENT_BYTES", 1)


def harmed(scans: Path, file: str, content: bytes) -> Path:
    """A scan beside two good ones, with another content in one of its files."""
    for name in ("0000-good", "0001-harmed", "0002-good"):
        scan = make_scan(scans, name)
        record(scan, np.arange(3))
        place(scan, np.arange(3), np.zeros((3, 2)))
    path = scans / "0001-harmed" / file
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("scan.json", b"", "scan.json is damaged: "),
        ("scan.json", b"\xff" * 40, "scan.json is damaged: "),
        ("scan.json", b'{"series_id": 1}', "missing required field `series_uid`"),
        ("scan.json", b"[" * 60_000, "scan.json is damaged: "),
        ("scan.json", b" " * 70_000, "scan.json has 70000 bytes: wanted 65536 at most"),
        (FRAMES, b" " * 70_000, "column.json has 70000 bytes: wanted 65536 at most"),
        (
            FRAMES,
            b'{"dtype": "<u2", "item_shape": [1099511627776, 6], "segment_frames": 64}',
            "<= 2147483648",
        ),
        (
            FRAMES,
            b'{"dtype": "<u2", "item_shape": [2000000, 2000000], "segment_frames": 64}',
            "bytes at most",
        ),
        (
            FRAMES,
            b'{"dtype": "O", "item_shape": [16, 16], "segment_frames": 64}',
            "dtype 'O': wanted numbers",
        ),
        (FRAMES, b'{"dtype": "<u2", "item_shape": [16, 16], "segment_frames": 0}', "segment_frames"),
        (
            FRAMES,
            b'{"dtype": "<u2", "item_shape": [4, 64], "segment_frames": 4096}',
            "its frames are (4, 64)",
        ),
        ("ledger/subscriber/000000.bin", b"", "000000.bin has 0 bytes, not 4096"),
        ("counters/subscriber", b"", "subscriber has 0 bytes, not 512"),
    ],
)
def test_a_damaged_scan_is_set_aside_with_a_sentence(
    tmp_path: Path, file: str, content: bytes, reason: str
) -> None:
    scans = tmp_path / "scans"
    harmed(scans, file, content)
    before = {path.relative_to(scans) for path in scans.rglob("*")}
    (sentence,) = mend_scans(scans, never)
    assert sentence.startswith(
        f"scan 0001-harmed cannot be read and lies in {tmp_path / 'damaged'}/0001-harmed now"
    )
    assert reason in sentence
    assert [scan.name for scan in scans_in(scans)] == ["0000-good", "0002-good"]
    moved = {path.relative_to(tmp_path / "damaged") for path in (tmp_path / "damaged").rglob("*")}
    assert {path.relative_to(scans) for path in scans.rglob("*")} | moved == before, "nothing is deleted"
    assert mend_scans(scans, never) == []


def test_what_was_set_aside_before_is_not_replaced(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for _ in range(2):
        harmed(scans, "scan.json", b"")
        mend_scans(scans, never)
        shutil.rmtree(scans)
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["0001-harmed", "0001-harmed.1"]


def test_the_files_of_a_damaged_scan_are_named_where_it_is_opened(tmp_path: Path) -> None:
    path = harmed(tmp_path, FRAMES, b"{}")
    with pytest.raises(DamagedScanError, match=f"^{path} is damaged: Object missing required field"):
        Column(path.parent)
    path = harmed(tmp_path / "more", "scan.json", b"nonsense")
    with pytest.raises(DamagedScanError, match=f"^{path} is damaged: "):
        Scan(path.parent)


def whole_scan(scans: Path, *, is_done: bool = False) -> Scan:
    """A scan with every file that stages write, each of them the second of its name."""
    scan, numbers = make_scan(scans, "0000-torn"), np.arange(N)
    record(scan, numbers, pixels_of(numbers))
    place(scan, numbers, np.stack([numbers, -numbers], axis=1))
    infer(scan, numbers, 1.0)
    for stage, column in (("refinement", "refined_s"), ("stitcher", "mosaicked_s")):
        scan.column(column, writable=True).write(numbers, 5.0)
        scan.mark(stage, numbers, State.DONE)
        scan.counters(stage, writable=True)["version"] = 2
    append_records(scan.folder, [as_record("start", {"uid": "r"}), as_record("stop", {"uid": "s"})])
    for n in (1, 2):
        publish_probe(scan, np.full((1, 16, 16), n))
        write_error_curve(scan.folder, [EpochError(float(n), 0.5, N, 1.0)] * n)
        write_calibration(scan.folder, CalibrationRecord(sigma_factor=float(n)))
        if is_done:
            write_snapshot(scan.folder, read_snapshot_of(scan, n))
        else:
            SnapshotWriter(scan.folder).write(*all_alike(n))
    if is_done:
        close(scan, "subscriber", "positions", "inference", "refinement", "stitcher", "recorder")
    scan.close()
    return scan


def read_snapshot_of(scan: Scan, n: int) -> object:
    SnapshotWriter(scan.folder).write(*all_alike(n))
    return read_snapshot(scan.folder)


def pixels_of(numbers: np.ndarray, shape: tuple[int, int] = (16, 16)) -> np.ndarray:
    """Frames that say which they are in every pixel, none of it zero."""
    return np.broadcast_to(numbers[:, None, None] + 1, (len(numbers), *shape)).astype("<u2")


def torn(content: bytes) -> Iterator[bytes]:
    """A file of which not all came to the disk: its end is missing, or is nothing but zero."""
    for n in sorted({0, 1, len(content) // 3, len(content) // 2, len(content) - 1}):
        yield content[:n]
        yield content[:n] + bytes(len(content) - n)


def assert_as_it_was_or_not_there(scan: Scan) -> None:
    """Every stage finds what was written, or what it finds in a new scan."""
    numbers = scan.done("subscriber")
    np.testing.assert_array_equal(scan.column("frames").read(numbers), pixels_of(numbers))
    for stage, column, value in (("refinement", "refined_s", 5.0), ("stitcher", "mosaicked_s", 5.0)):
        done = scan.done(stage)
        assert (scan.column(column).read(done) == value).all() if done.size else True
    assert (scan.column("patches").read(scan.done("inference")) == 1).all() if scan.has("patches") else True
    snapshot = read_snapshot(scan.folder)
    assert snapshot is None or snapshot.n_updates == 2
    assert len(read_error_curve(scan.folder)) in (0, 2)
    assert read_calibration(scan.folder).sigma_factor in (CalibrationRecord().sigma_factor, 2.0)
    assert [name for name, _ in read_documents(scan.folder)] in ([], ["start"], ["start", "stop"])
    SnapshotWriter(scan.folder).write(*all_alike(3))
    assert read_snapshot(scan.folder).n_updates == 3


FILES_OF_STAGES = (
    *("columns/patches/column.json", "columns/refined_s/column.json", "columns/positions_m/column.json"),
    *("ledger/refinement/column.json", "ledger/positions/column.json", "counters/stitcher"),
    *("error_curve.npy", "calibration.json", "refined/state.npz", "refined/tiles.bin", "probe/0002.npy"),
)


@pytest.mark.parametrize("file", FILES_OF_STAGES)
def test_a_file_of_a_stage_that_ends_too_early_is_set_aside_with_all_that_was_made(
    tmp_path: Path, small_segments: None, file: str
) -> None:
    whole = whole_scan(tmp_path / "whole")
    content = (whole.folder / file).read_bytes()
    for n in sorted({0, 1, len(content) // 3, len(content) // 2, len(content) - 1}):
        scans = tmp_path / str(n) / "scans"
        shutil.copytree(tmp_path / "whole", scans)
        (scans / whole.name / file).write_bytes(content[:n])
        sentences = mend_scans(scans, never)
        scan = Scan(scans / whole.name)
        if file != "refined/tiles.bin" or n < len(content) // 2:  # the rest of it is room for tiles to come
            (sentence,) = sentences
            assert f"scan {whole.name} is made again from its frames" in sentence
            assert "damaged" in sentence or "bytes, not" in sentence
            assert (tmp_path / str(n) / "damaged" / whole.name / file).read_bytes() == content[:n]
            assert not states(scan, "refinement").any()
            assert states(scan, "positions").any() == ("positions" not in file)
        assert scan.done("subscriber").tolist() == list(range(N))
        assert_as_it_was_or_not_there(scan)
        assert mend_scans(scans, never) == []


def test_after_a_power_cut_nothing_that_was_made_is_believed(tmp_path: Path, small_segments: None) -> None:
    whole = whole_scan(tmp_path / "whole")
    for index in range(5):
        scans = tmp_path / str(index) / "scans"
        shutil.copytree(tmp_path / "whole", scans)
        for file in FILES_OF_STAGES:
            content = (whole.folder / file).read_bytes()
            n = index * len(content) // 5
            (scans / whole.name / file).write_bytes(content[:n] + bytes(len(content) - n))
        (sentence,) = mend_scans(scans, always)
        assert sentence.endswith("now: the computer was switched off")
        scan = Scan(scans / whole.name)
        assert not any(states(scan, stage).any() for stage in ("positions", "inference", "stitcher"))
        assert_as_it_was_or_not_there(scan)


def test_times_of_before_a_power_cut_are_set_aside_as_they_are_on_a_clock_that_began_anew(
    tmp_path: Path, small_segments: None
) -> None:
    scan, numbers = whole_scan(tmp_path / "scans"), np.arange(N)
    before_s = 9000.0 + numbers / 10
    scan.column("received_s", writable=True).write(numbers, before_s)
    mend_scans(tmp_path / "scans", always)
    assert np.isnan(Scan(scan.folder).column("received_s").read(numbers)).all()
    aside = Column(tmp_path / "damaged" / scan.name / "columns" / "received_s")
    np.testing.assert_array_equal(aside.read(numbers), before_s)
    scan = Scan(scan.folder)
    after, shown_s = np.arange(N, N + 10), 0.25  # frames that come on, seconds after the computer was started
    record(scan, after, pixels_of(after))
    scan.column("exposed_s", writable=True).write(np.arange(N + 10), np.arange(N + 10) / 10)
    scan.column("received_s", writable=True).write(after, 20.0 + after / 10)
    scan.column("mosaicked_s", writable=True).write(np.append(numbers, after), 20.0 + (N + 10) / 10 + shown_s)
    expected_s = (N + 10 - after) / 10 + shown_s
    np.testing.assert_allclose(time_to_image_s(scan), expected_s, atol=1e-9)


def test_a_result_of_a_finished_scan_that_is_torn_is_made_again(tmp_path: Path, small_segments: None) -> None:
    scan = whole_scan(tmp_path / "scans", is_done=True)
    path = scan.folder / "refined.npz"
    content = path.read_bytes()
    for damage in (content[:-1], content[: len(content) // 2], b""):
        path.write_bytes(damage)
        (sentence,) = mend_scans(tmp_path / "scans", never)
        assert "refined.npz is damaged" in sentence
        assert Scan(scan.folder).count("recorder", "closed") == 0
        shutil.rmtree(tmp_path / "damaged")
        path.write_bytes(content)
        close(Scan(scan.folder), "recorder")
        assert mend_scans(tmp_path / "scans", never) == []


def test_torn_documents_are_read_up_to_where_they_are_torn(tmp_path: Path) -> None:
    first, last = as_record("start", {"uid": "r"}), as_record("stop", {"uid": "s", "run_start": "r"})
    # What is appended comes to the disk in its order: it ends too early, or is room without content.
    for damage in (*((first + last)[:n] for n in range(len(first + last))), first + bytes(len(last))):
        (tmp_path / RECORD_FILE).write_bytes(damage)
        repair_record(tmp_path)
        read = read_documents(tmp_path)
        assert read == [("start", {"uid": "r"})][: len(read)]
        append_records(tmp_path, [last])
        assert [name for name, _ in read_documents(tmp_path)] == ["start", "stop"][-len(read) - 1 :]


@pytest.mark.parametrize("shape", [(16, 16), (48, 64), (64, 64)], ids=str)
def test_after_a_power_cut_no_frame_counts_whose_pixels_are_gone_and_none_is_gone_that_was_kept(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    for index in range(8):
        after = cut_the_power(tmp_path / str(index), rng, shape)
        assert (after.n_kept_lost, after.n_wrong) == (0, 0)
        assert not states(after.scan, "positions").any()
        assert "the computer was switched off" in after.said


def test_a_scan_whose_results_are_written_is_left_as_it_is_after_a_power_cut(tmp_path: Path) -> None:
    whole_scan(tmp_path, is_done=True)
    assert mend_scans(tmp_path, always) == []


def test_half_a_note_hides_nothing_of_what_is_noted_later(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, "0000-noted")
    record(scan, np.arange(5))
    Keeper(tmp_path).look()
    note = (scan.folder / keeper.FILE_NAME).read_bytes()
    for damage in torn(note):
        (scan.folder / keeper.FILE_NAME).write_bytes(note + damage[: len(note) - 1])
        record(scan, np.arange(5, 7))
        Keeper(tmp_path).look()
        assert keeper.kept_states(scan)[:8].tolist() == [State.DONE] * 7 + [State.PENDING]


def test_what_cannot_be_brought_to_the_disk_is_said_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(keeper, "sync", fail)
    scan, keeping = make_scan(tmp_path, "0000-a"), Keeper(tmp_path)
    record(scan, np.arange(5))
    for _ in range(3):
        keeping.look()
    assert caplog.text.count("frames are not brought to the disk as they come") == 1
    assert keeper.kept_states(scan).tolist() == []
