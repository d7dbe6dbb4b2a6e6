"""How true the error bars of a scan have turned out, beside its columns: written by the stitcher."""

import contextlib
from pathlib import Path

import msgspec

from stream.atomic import DiskFullError, write_atomically
from stream.wire.messages import CalibrationRecord

FILE_NAME = "calibration.json"


def write_calibration(folder: Path, record: CalibrationRecord) -> None:
    """Replaces the record in the scan's `folder`; a full disk costs the record, not the stage."""
    with contextlib.suppress(DiskFullError):
        write_atomically(folder / FILE_NAME, msgspec.json.encode(record))


def read_calibration(folder: Path) -> CalibrationRecord:
    """Returns what became of the error bars of the scan in `folder`; nothing is known without a record."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=CalibrationRecord)
    except FileNotFoundError:
        return CalibrationRecord()
