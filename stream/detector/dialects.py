"""The dialects of detectors by the names that they have in a configuration, `detector.format`."""

from collections.abc import Callable

from stream.detector.protocol import Dialect
from stream.detector.stream_v2 import StreamV2

DIALECTS: dict[str, Callable[[], Dialect]] = {"dectris-v2": StreamV2}
