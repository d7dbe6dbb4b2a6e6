"""A scan folder that is damaged is named with its file, set aside whole, and harms no other scan."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from stream.record.columns import Column, DamagedScanError
from stream.record.scan import Scan, scans_in, set_aside_damaged
from tests.helpers.stream.scans import make_scan, place, record

FRAMES = "columns/frames/column.json"


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
        ("columns/positions_m/000000.bin", bytes(100), "000000.bin has 100 bytes, not 65536"),
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
    (sentence,) = set_aside_damaged(scans)
    assert sentence.startswith(
        f"scan 0001-harmed cannot be read and lies in {tmp_path / 'damaged'}/0001-harmed now"
    )
    assert reason in sentence
    assert [scan.name for scan in scans_in(scans)] == ["0000-good", "0002-good"]
    moved = {path.relative_to(tmp_path / "damaged") for path in (tmp_path / "damaged").rglob("*")}
    assert {path.relative_to(scans) for path in scans.rglob("*")} | moved == before, "nothing is deleted"
    assert set_aside_damaged(scans) == []


def test_what_was_set_aside_before_is_not_replaced(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for _ in range(2):
        harmed(scans, "scan.json", b"")
        set_aside_damaged(scans)
        shutil.rmtree(scans)
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["0001-harmed", "0001-harmed.1"]


def test_the_files_of_a_damaged_scan_are_named_where_it_is_opened(tmp_path: Path) -> None:
    path = harmed(tmp_path, FRAMES, b"{}")
    with pytest.raises(DamagedScanError, match=f"^{path} is damaged: Object missing required field"):
        Column(path.parent)
    path = harmed(tmp_path / "more", "scan.json", b"nonsense")
    with pytest.raises(DamagedScanError, match=f"^{path} is damaged: "):
        Scan(path.parent)
