"""The messages between a dispatcher and the workers that lease frames from it.

A worker greets (`Hello`, with its name as the role) and asks; whatever it has done gives it room for more.
They are no part of the live protocol: clients of a run need not know them.
"""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from stream.wire.messages import Hello, Message, Name, Reject, Welcome


class AskLease(Message, frozen=True, tag=True, kw_only=True):
    """A worker lives and can work; said again a few times a second while it has nothing to do."""

    scan: Name = ""  # that it is ready for: only of that it gets frames
    n_leases: Annotated[int, Meta(ge=1, le=64)]  # at a time, so that it need not wait for the next
    n_held: Annotated[int, Meta(ge=0, le=2**16)] = 0  # that it has and has not answered
    patch_px: Annotated[int, Meta(ge=1, le=4096)]  # side of the patches that it makes


class Lease(Message, frozen=True, tag=True, kw_only=True):
    """Frames to work on; none where there is nothing to do: then it tells which scan to get ready for.

    Buffer: `numbers` (frame,) int64, ascending.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("numbers",)

    scan: Name = ""  # "" where none is open


class Inferred(Message, frozen=True, tag=True, kw_only=True):
    """What a worker has made of one lease, whole.

    Buffers, in order: `numbers` (frame,) int64, as leased; `patches` (frame, y, x) complex64; `sigma`
    (frame, y, x) float16, radians of phase; `models` (frame,) uint64, which weights made each; `good`
    (frame,) uint8, 0 where a value is not finite.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("numbers", "patches", "sigma", "models", "good")

    scan: Name


LeaseMessage = Hello | Welcome | Reject | AskLease | Lease | Inferred

DECODER: msgspec.msgpack.Decoder[LeaseMessage] = msgspec.msgpack.Decoder(LeaseMessage)
