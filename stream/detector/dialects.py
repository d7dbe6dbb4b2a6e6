"""What detectors speak, by the names that it has in a configuration, `detector.format`."""

from collections.abc import Callable, Sequence

from stream.detector import dectris, jungfraujoch, plain, stream_v1
from stream.detector.config import DetectorConfig
from stream.detector.files.feed import files_feed
from stream.detector.jungfraujoch import Jungfraujoch
from stream.detector.plain import Plain
from stream.detector.protocol import DetectorMessage, DetectorMessageError, Dialect, Feed
from stream.detector.pva.feed import pva_feed
from stream.detector.stream_v1 import StreamV1
from stream.detector.stream_v2 import StreamV2
from stream.wire.codec import Buffer

DIALECTS: dict[str, Callable[[], Dialect]] = {
    "dectris-v2": StreamV2,
    "dectris-v1": StreamV1,
    "jungfraujoch": Jungfraujoch,
    "json": Plain,
}
"""How messages of a socket are decoded."""

FEEDS: dict[str, Callable[[DetectorConfig], Feed]] = {"files": files_feed, "pva": pva_feed}
"""Where frames come from that no socket brings."""

ENCODERS: dict[str, Callable[[DetectorMessage], list[list[bytes]]]] = {
    "dectris-v2": lambda message: [[dectris.encode_message(message)]],
    "dectris-v1": lambda message: [stream_v1.encode_message(message)],
    "jungfraujoch": jungfraujoch.encode,
    "json": lambda message: [plain.encode(message)],
}
"""The messages that a detector sends by a socket, parts and all: what `DIALECTS` decode."""

COMPRESSIONS = {
    "dectris-v2": ("bslz4", "lz4", ""),
    "dectris-v1": ("bslz4", "lz4", ""),
    "jungfraujoch": ("bslz4", "bszstd", ""),
    "json": ("bslz4", "bszstd", "lz4", ""),
}
"""Of the frames that a detector sends by a socket, "" for none."""

NUMBERED = frozenset({"dectris-v1"})
"""Whose series have a number and no unique id."""


def formats_of(parts: Sequence[Buffer]) -> list[str]:
    """Returns the formats in which a message that came by a socket says something."""
    return [name for name, dialect in DIALECTS.items() if _is_understood(dialect(), parts)]


def _is_understood(dialect: Dialect, parts: Sequence[Buffer]) -> bool:
    try:
        return dialect.decode(parts) is not None
    except DetectorMessageError:
        return False
