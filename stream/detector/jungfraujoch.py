"""Jungfraujoch, PSI's receiver of JUNGFRAU and EIGER detectors: its additions to Stream V2; no sockets.

Images may be of signed counts and compressed by bitshuffle with Zstandard, their exposure ends at `end_time`,
and much is said of each that no other detector says. Messages of type "calibration" and "metadata" are passed
over. The format: https://gitea.psi.ch/mx/Jungfraujoch, docs/CBOR.md.
"""

from collections.abc import Sequence
from typing import Any

import cbor2
import numpy as np

from stream.detector.dectris import encode_frame, encode_message, tagged
from stream.detector.protocol import COUNTS, DetectorMessage, DetectorMessageError, ImageMessage, StartMessage
from stream.detector.stream_v2 import StreamV2
from stream.wire.codec import Buffer

MAGIC_NUMBER = 0x52320010
METADATA_EVERY = 64  # images
_DTYPES = frozenset(COUNTS.values())


class Jungfraujoch:
    """Dialect: Stream V2 as Jungfraujoch speaks it."""

    def __init__(self) -> None:
        self._reader = StreamV2()

    def decode(self, parts: Sequence[Buffer]) -> DetectorMessage | None:
        """Returns what the detector said; see `Dialect`."""
        message = self._reader.decode(parts)
        if isinstance(message, ImageMessage):
            for channel, frame in message.data.items():
                if frame.dtype not in _DTYPES:
                    raise DetectorMessageError(
                        f"image {message.image_id} has {np.dtype(frame.dtype).name} in channel {channel!r}: "
                        f"wanted counts, one of {[*COUNTS]}"
                    )
        return message


def encode(message: DetectorMessage) -> list[list[bytes]]:
    """Returns the messages that Jungfraujoch sends for `message`, one part each.

    A calibration follows the start, metadata every `METADATA_EVERY` images.

    Raises
    ------
    ValueError
        If images are of floats or compressed by LZ4 without bitshuffle: it sends no such.
    """
    fields: dict[str, Any] = {"magic_number": MAGIC_NUMBER}
    if isinstance(message, StartMessage):
        pedestal = np.zeros(message.frame_shape or (1, 1), "<u2")
        calibration = {"type": "calibration", "data": {"pedestal_G0": tagged(encode_frame(pedestal))}}
        start = encode_message(message, {**fields, "error_value": -32768})
        return [[start], [cbor2.dumps(fields | _series(message) | calibration)]]
    if not isinstance(message, ImageMessage):
        return [[encode_message(message, {**fields, "images_collected": 0})]]
    for frame in message.data.values():
        if frame.dtype not in _DTYPES or frame.compression not in ("", "bslz4", "bszstd"):
            raise ValueError(
                f"frame {frame.dtype} {frame.compression!r}: Jungfraujoch sends counts of 8, 16 or 32 "
                "bits, as they are or compressed by bslz4 or bszstd"
            )
    said = {"bkg_estimate": 0.1 * message.image_id, "spots": [], "jf_info": message.image_id % 7}
    image = encode_message(message, fields | said, names={"stop_time": "end_time"})
    if (message.image_id + 1) % METADATA_EVERY:
        return [[image]]
    metadata = {"type": "metadata", "images": [said | {"image_id": message.image_id}]}
    return [[image], [cbor2.dumps(fields | _series(message) | metadata)]]


def _series(message: DetectorMessage) -> dict[str, Any]:
    return {"series_id": message.series_id, "series_unique_id": message.series_unique_id or ""}
