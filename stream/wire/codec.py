"""Message and arrays to and from the parts of a multipart message; no sockets.

The first part is the msgpack of a `stream.wire.messages` struct, each further part the raw bytes of one array
that it announces. Whatever comes from outside passes `decode`, which raises `ProtocolError` and nothing else.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.wire.messages import PROTOCOL, AnyMessage, ArrayHeader, Message

MAX_HEADER_BYTES = 1 << 16

Buffer = bytes | bytearray | memoryview
MessageT = TypeVar("MessageT", bound=Message)
_ENCODER = msgspec.msgpack.Encoder()
DECODER: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


class ProtocolError(ValueError):
    """A peer sent something that is not a message of this protocol."""


def encode(message: Message, arrays: Sequence[NDArray[Any]] = ()) -> list[Buffer]:
    """Returns the parts that carry `message` and `arrays` in order."""
    arrays = [np.ascontiguousarray(array) for array in arrays]
    headers = tuple(ArrayHeader(array.dtype.str, array.shape) for array in arrays)
    head = _ENCODER.encode(msgspec.structs.replace(message, arrays=headers) if headers else message)
    return [head, *(array.reshape(-1).view(np.uint8).data if array.size else b"" for array in arrays)]


def decode(parts: Sequence[Buffer]) -> tuple[AnyMessage, list[NDArray[Any]]]:
    """Returns the message and read-only views of its arrays.

    Raises
    ------
    ProtocolError
        If the parts are not a message of this protocol, or an array's length is not what was announced.
    """
    return decode_with(DECODER, parts)


def decode_with(
    decoder: msgspec.msgpack.Decoder[MessageT], parts: Sequence[Buffer]
) -> tuple[MessageT, list[NDArray[Any]]]:
    """Returns the same of messages that `decoder` knows, for pipes that do not speak the live protocol."""
    if not parts or len(parts[0]) > MAX_HEADER_BYTES:
        size = len(parts[0]) if parts else 0
        raise ProtocolError(f"message of {len(parts)} parts with a header of {size} bytes")
    try:
        message = decoder.decode(parts[0])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a message of protocol {PROTOCOL}: {error}") from error
    if len(parts) - 1 != len(message.arrays):
        raise ProtocolError(
            f"{type(message).__name__} announced {len(message.arrays)} arrays, {len(parts) - 1} came"
        )
    return message, [_array(header, part) for header, part in zip(message.arrays, parts[1:], strict=True)]


def _array(header: ArrayHeader, part: Buffer) -> NDArray[Any]:
    dtype = np.dtype(header.dtype)
    n_bytes = dtype.itemsize * math.prod(header.shape)
    if n_bytes != len(part):
        raise ProtocolError(
            f"array {header.dtype} {header.shape} needs {n_bytes} bytes, {len(part)} bytes came"
        )
    try:
        return np.frombuffer(memoryview(part).toreadonly(), dtype).reshape(header.shape)
    except ValueError as error:  # no elements, and sides that no array can have
        raise ProtocolError(f"array {header.dtype} {header.shape}: {error}") from error
