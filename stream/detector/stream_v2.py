"""The dialect of DECTRIS, of which most messages repeat the one before but for a few numbers and the pixels.

Where all other bytes of a message are those of an image that `stream.detector.dectris` has decoded, what they
say is known, and the pixels are not copied. A message that differs anywhere else is decoded there.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from stream.detector.dectris import COMPRESSED, ROW_MAJOR, TYPED_ARRAYS, decode_message
from stream.detector.protocol import DetectorMessage, DetectorMessageError, EncodedFrame, ImageMessage
from stream.wire.codec import Buffer

# Numerator and denominator, which does not change; by their names in the message.
_TIMES = {name: name for name in ("real_time", "start_time", "stop_time")} | {"end_time": "stop_time"}
_NUMBER = rb"([\x00-\x17]|\x18.|\x19..|\x1a.{4}|\x1b[\x00-\x7f].{7})"  # the integers that an image may have
_LENGTH = rb"([\x40-\x57]|\x58.|\x59..|\x5a.{4})"  # in front of bytes
_UNSIGNED, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = 0, 2, 3, 4, 5, 6  # what CBOR calls major types
_TAGS = {ROW_MAJOR, COMPRESSED, *TYPED_ARRAYS}
_SELF_DESCRIBED = b"\xd9\xd9\xf7"
_from_bytes = int.from_bytes  # most significant byte first
_MOST_KEPT_BYTES = 1 << 12  # of what stands around the pixels


class StreamV2:
    """Dialect: DECTRIS Stream V2; images like the last one take less time."""

    def __init__(self) -> None:
        self._mould: _Mould | None = None
        self._n_unlike = 0  # images in a row

    def decode(self, parts: Sequence[Buffer]) -> DetectorMessage | None:
        """Returns what a detector said; see `Dialect`."""
        if len(parts) != 1:
            raise DetectorMessageError(f"message of {len(parts)} parts: Stream V2 has one")
        message = parts[0]
        if self._mould is not None and (image := self._mould.cast(message)) is not None:
            self._n_unlike = 0
            return image
        decoded = decode_message(message)
        if isinstance(decoded, ImageMessage):
            self._n_unlike += 1
            # Ever more seldom: of images that are never alike no mould is worth its making.
            if self._n_unlike.bit_count() == 1:
                self._mould = _mould_of(bytes(message), decoded)
        return decoded


class _Mould(NamedTuple):
    """What images that are like one of them have in common."""

    image: ImageMessage
    channels: tuple[tuple[re.Pattern[bytes], str, EncodedFrame], ...]  # what stands before the pixels of each
    after: re.Pattern[bytes]
    fields: tuple[tuple[str, int | None], ...]  # that change, in the order of the message; denominators

    def cast(self, message: Buffer) -> ImageMessage | None:
        """Returns the image that `message` is, None where it is not like this one."""
        image, channels, after, fields = self
        pixels, at = memoryview(message), 0
        encoded: tuple[bytes, ...] = ()
        data = {}
        for before, channel, frame in channels:
            found = before.match(message, at)
            if found is None:
                return None
            numbers = found.groups()
            encoded += numbers[:-1]
            start = found.end()
            at = start + _value(numbers[-1])
            data[channel] = replace(frame, data=pixels[start:at])
        found = after.fullmatch(message, at)
        if found is None or at > len(pixels):
            return None
        encoded += found.groups()
        changed: dict[str, int | tuple[int, int]] = {}
        for (name, denominator), number in zip(fields, encoded, strict=True):
            value = _value(number)
            changed[name] = value if denominator is None else (value, denominator)
        return replace(image, data=data, **changed)


def _value(encoded: bytes) -> int:
    return _from_bytes(encoded[1:]) if len(encoded) > 1 else encoded[0] & 31


def _mould_of(message: bytes, image: ImageMessage) -> _Mould | None:
    """Return the mould that `image` is, which was decoded from `message`; None where it cannot be one."""
    try:
        patterns, names = _taken_apart(message)
    except _UnlikeError:
        return None
    *before, after = (re.compile(pattern, re.DOTALL) for pattern in patterns)
    if len(before) != len(image.data) or sum(map(len, patterns)) > _MOST_KEPT_BYTES:
        return None
    channels = tuple(
        (pattern, channel, replace(frame, data=b""))
        for pattern, (channel, frame) in zip(before, image.data.items(), strict=True)
    )
    fields = tuple((name, None if name == "image_id" else getattr(image, name)[1]) for name in names)
    return _Mould(replace(image, data={}), channels, after, fields)


class _UnlikeError(ValueError):
    """An image that is written in another way than this module knows."""


def _taken_apart(message: bytes) -> tuple[list[bytes], list[str]]:
    """Return expressions for what stands before, between and after the pixels, and the fields that change.

    Only for a message that the decoder has taken: what is not looked at here is in order.
    """
    patterns, names, seen, kept = [b""], list[str](), set[str](), 0

    def leave_out(start: int, stop: int, instead: bytes) -> None:
        nonlocal kept
        patterns[-1] += re.escape(message[kept:start]) + instead
        kept = stop

    at = len(_SELF_DESCRIBED) * message.startswith(_SELF_DESCRIBED)
    n_fields, at = _expect(message, at, _MAP)
    for _ in range(n_fields):
        name, at = _text(message, at)
        if _TIMES.get(name, name) in seen:
            raise _UnlikeError
        seen.add(_TIMES.get(name, name))
        if name == "data":
            n_channels, at = _expect(message, at, _MAP)
            for _ in range(n_channels):
                start, pixels, at = _pixels(message, at)
                leave_out(start, pixels, _LENGTH)
                patterns.append(b"")
                kept = at
        elif name == "image_id" or name in _TIMES:
            names.append(_TIMES.get(name, name))
            start = at if name == "image_id" else _expect(message, at, _ARRAY)[1]
            _, stop = _expect(message, start, _UNSIGNED)
            leave_out(start, stop, _NUMBER)
            at = _after(message, at)
        else:
            at = _after(message, at)
    leave_out(len(message), len(message), b"")
    return patterns, names


def _head(message: bytes, at: int) -> tuple[int, int, int]:
    """Return the major type of the item at `at`, the number in its head, and where its head ends."""
    major, value, at = message[at] >> 5, message[at] & 31, at + 1
    if value < 24:
        return major, value, at
    if value > 27:  # of a length that only its end tells
        raise _UnlikeError
    n_bytes = 1 << (value - 24)
    return major, int.from_bytes(message[at : at + n_bytes], "big"), at + n_bytes


def _expect(message: bytes, at: int, wanted: int) -> tuple[int, int]:
    major, value, at = _head(message, at)
    if major != wanted:
        raise _UnlikeError
    return value, at


def _text(message: bytes, at: int) -> tuple[str, int]:
    n_bytes, at = _expect(message, at, _TEXT)
    return str(message[at : at + n_bytes], "utf-8"), at + n_bytes


def _after(message: bytes, at: int) -> int:
    """Return where the item at `at` ends."""
    n_left = 1
    while n_left:
        major, value, at = _head(message, at)
        n_left += {_ARRAY: value, _MAP: 2 * value, _TAG: 1}.get(major, 0) - 1
        at += value if major in (_BYTES, _TEXT) else 0
    return at


def _pixels(message: bytes, at: int) -> tuple[int, int, int]:
    """Return where the bytes of the channel at `at` have their head, where they begin and where they end."""
    _, at = _text(message, at)
    while True:
        start = at
        major, value, at = _head(message, at)
        if major == _BYTES:
            return start, at, at + value
        # Other tags may stand for what is elsewhere in the message.
        if major not in (_UNSIGNED, _TEXT, _ARRAY, _TAG) or (major == _TAG and value not in _TAGS):
            raise _UnlikeError
        at += value if major == _TEXT else 0
