"""What a configuration may name as the detector's format is a dialect, and has a memory of its own."""

from typing import Any, get_args

import pytest

from stream.detector.config import DetectorConfig
from stream.detector.dialects import DIALECTS, FEEDS
from stream.detector.protocol import DetectorMessageError


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
    ],
)
def test_a_format_needs_what_says_where_its_frames_are(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DetectorConfig(**settings)


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_none_of_its_messages_is_refused_by_its_own_error(name: str) -> None:
    dialect = DIALECTS[name]()
    for parts in ([], [b""], [b"\xff"], [bytes(100)], [b"{}", b""], [b"x"] * 20):
        with pytest.raises(DetectorMessageError):
            dialect.decode(parts)
