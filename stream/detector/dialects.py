"""What detectors speak, by the names that it has in a configuration, `detector.format`."""

from collections.abc import Callable, Sequence

from stream.detector.config import DetectorConfig
from stream.detector.dectris import encode_message
from stream.detector.protocol import DetectorMessage, Dialect, Feed
from stream.detector.pva import pva_feed
from stream.detector.stream_v2 import StreamV2

DIALECTS: dict[str, Callable[[], Dialect]] = {"dectris-v2": StreamV2}
"""How messages of a socket are decoded."""

FEEDS: dict[str, Callable[[DetectorConfig], Feed]] = {"pva": pva_feed}
"""Where frames come from that no socket brings."""

ENCODERS: dict[str, Callable[[DetectorMessage], Sequence[bytes]]] = {
    "dectris-v2": lambda message: [encode_message(message)]
}
"""The parts of the message that a detector sends by a socket: what `DIALECTS` decode."""
