"""What a configuration may name as the detector's format is a dialect, and each brings the same frames."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from launch.commands.replay import as_counts
from launch.offline.recorded import open_recorded
from stream.detector.config import DetectorConfig
from stream.detector.dialects import COMPRESSIONS, DIALECTS, ENCODERS, FEEDS
from stream.detector.protocol import DetectorMessageError
from stream.detector.simulator import ReplayConfig, series_messages
from tests.helpers.recorded_data import SHARED_DATA, needs_shared_data
from tests.helpers.stream.detector import Recorder


def test_every_format_of_the_configuration_is_a_dialect_or_a_feed() -> None:
    formats = get_args(DetectorConfig.model_fields["format"].annotation)
    assert sorted(formats) == sorted([*DIALECTS, *FEEDS])


PVA = {"format": "pva", "silence_s": 5}
ZEROMQ = {"address": "tcp://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "format 'dectris-v2' needs `address`"),
        (PVA, "format 'pva' needs `pv`"),
        ({"format": "pva", "pv": "D:Image"}, "format 'pva' needs `silence_s`"),
        (
            {"format": "pva", "pv": "D:Image", "silence_s": 5, "address": "tcp://127.0.0.1:1"},
            "`address` is not",
        ),
        ({"pv": "D:Image"} | ZEROMQ, "`pv` is not for format 'dectris-v2'"),
        ({"pv": "D:Image", "subscribers": 2} | PVA, "wanted 1"),
        ({"format": "dectris-v1", "subscribers": 2} | ZEROMQ, "those of dectris-v1 have none: wanted 1"),
    ],
)
def test_a_format_needs_what_says_where_its_frames_are(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DetectorConfig(**settings)


every_dialect = pytest.mark.parametrize("name", DIALECTS)


def test_what_is_decoded_can_be_sent() -> None:
    assert DIALECTS.keys() == ENCODERS.keys() == COMPRESSIONS.keys()


@pytest.mark.parametrize(
    ("name", "compression"), [(name, each) for name, known in COMPRESSIONS.items() for each in known]
)
@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<u4"])
def test_counts_of_8_16_and_32_bits_are_recorded(
    tmp_path: Path, name: str, compression: Any, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, np.iinfo(dtype).max, (9, 12, 17), dtype, endpoint=True)  # dead pixels, too
    np.testing.assert_array_equal(recorded(tmp_path, name, frames, compression), frames)


@needs_shared_data
@every_dialect
def test_a_recorded_scan_is_the_same_in_every_dialect(tmp_path: Path, name: str) -> None:
    with open_recorded(str(SHARED_DATA / "siemens" / "siemens.cxi")) as scan:
        frames = np.stack([as_counts(np.asarray(frame), "frame") for frame in scan.frames])
    np.testing.assert_array_equal(recorded(tmp_path, name, frames, "bslz4"), frames)


def recorded(scans: Path, dialect: str, frames: np.ndarray, compression: Any) -> np.ndarray:
    """The frames of the scan that a series of `frames` becomes in a dialect."""
    recorder = Recorder(scans, format=dialect)
    config = ReplayConfig(series_uid="a", compression=compression)
    for _, message in series_messages(frames, config, len(frames)):
        recorder.take(ENCODERS[dialect](message))
    assert recorder.account().is_complete
    column = recorder.scan().column("frames")
    assert column.dtype == frames.dtype
    return column.read(range(len(frames)))


@every_dialect
def test_what_is_none_of_its_messages_is_refused_by_its_own_error(name: str) -> None:
    dialect = DIALECTS[name]()
    for parts in ([], [b""], [b"\xff"], [bytes(100)], [b"{}", b""], [b"x"] * 20):
        with pytest.raises(DetectorMessageError):
            dialect.decode(parts)
