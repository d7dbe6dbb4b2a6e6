"""What is written as JSON is JSON: a figure that is not finite is null, wherever it is written."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from launch.page.scans.packet import encode_arrays
from launch.results.summary import write_summary
from stream.documents.codec import decode_document, encode_document
from stream.plain_json import plain_json
from stream.record.calibration import FILE_NAME, write_calibration
from stream.record.events import EventLog
from stream.wire.messages import CalibrationRecord

ROOT = Path(__file__).parents[2]
# A hash of settings, their words in an error, what only its own writer reads again, and what is said to it.
ELSEWHERE = {
    "launch/config/config.py",
    "launch/config/file.py",
    "launch/fork_process.py",
    "launch/fork_server.py",
    "launch/offline/reconstruct.py",
    "launch/training/checkpoint.py",
    "stream/files/weights.py",
}
NOT_FINITE = {
    "a": math.nan,
    "b": [math.inf, {"c": -math.inf}],
    "d": np.float64("nan"),
    "e": np.float32("inf"),
    "f": np.array([1.0, np.nan]),
    "g": (np.int64(3), True, None, "ü"),
}
AS_JSON = {
    "a": None,
    "b": [None, {"c": None}],
    "d": None,
    "e": None,
    "f": [1, None],
    "g": [3, True, None, "ü"],
}


def strictly(text: bytes | str) -> object:
    """The value of JSON that has no words beyond the standard's."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("indent", [0, 2])
def test_what_is_not_finite_is_null(indent: int) -> None:
    assert strictly(plain_json(NOT_FINITE, indent=indent)) == AS_JSON


def test_what_json_cannot_carry_is_named() -> None:
    with pytest.raises(TypeError, match=r"JSON cannot carry .*Path"):
        plain_json({"path": Path("a")})


def test_every_file_and_packet_with_figures_is_plain_json(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.json", NOT_FINITE)
    write_calibration(tmp_path, CalibrationRecord(coverage68=math.nan))
    EventLog(tmp_path, lambda: math.nan).add("scan", "info", "begun")
    packet = encode_arrays({"error": math.nan}, {})
    n_header = int.from_bytes(packet[:4], "little")
    texts = {
        "summary": (tmp_path / "summary.json").read_bytes(),
        "calibration": (tmp_path / FILE_NAME).read_bytes(),
        "events": (tmp_path / "events.jsonl").read_bytes(),
        "packet": packet[4 : 4 + n_header],
        "document": encode_document("event", NOT_FINITE, serializer="json").split(b" ", 2)[2],
    }
    for name, text in texts.items():
        assert strictly(text), name
    assert strictly(texts["summary"]) == AS_JSON


def test_a_document_in_json_keeps_that_a_position_is_not_known() -> None:
    event = {"data": {"y": np.array([1.0, np.nan])}}
    _, document = decode_document(encode_document("event", event, serializer="json"))
    np.testing.assert_array_equal(np.asarray(document["data"]["y"], np.float64), [1.0, np.nan])


def test_nobody_writes_json_another_way() -> None:
    files = [path for room in ("launch", "stream") for path in (ROOT / room).rglob("*.py")]
    others = {
        str(path.relative_to(ROOT))
        for path in files
        if re.search(r"\bjson\.dumps?\(|json_response\(", path.read_text())
    }
    assert others == ELSEWHERE
