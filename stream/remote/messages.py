"""What a worker on another machine and its run say to each other.

The worker asks, the run answers. Every question has a number that its answer repeats, and asking it again
changes nothing: whatever is lost between the two is asked again (`stream.remote.asking`).
"""

import hashlib
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from stream.wire.handshake import Dialect
from stream.wire.messages import Count, Dtype, Hello, Message, Name, Reason, Reject, Welcome

PROTOCOL = 1
MOST_ANSWER_BYTES = 32 << 20
PART_BYTES = 1 << 20  # of a file in one answer
MOST_LEASES = 8  # that a worker holds

Side = Annotated[int, Meta(ge=1, le=65536)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Role = Literal["weights", "member", "mask", "probe", "found_probe", "tuned_weights"]


class SharedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the run that a worker needs; it asks for it by its contents, never by a path."""

    role: Role
    n_bytes: Annotated[int, Meta(ge=1, le=256 << 20)]
    sha256: Digest


class Question(Message, frozen=True, kw_only=True):
    """What questions and answers have in common."""

    question: Count = 0  # numbered by the worker; the answer repeats it


class AskSetup(Question, frozen=True, tag=True, kw_only=True):
    """A worker asks what its stage is built from."""


class Setup(Question, frozen=True, tag=True, kw_only=True):
    """The settings of the stage; each path in them is one of `files`, members in their order."""

    settings: Annotated[str, Meta(max_length=32768)]  # JSON: sections of the configuration by name
    files: Annotated[tuple[SharedFile, ...], Meta(max_length=64)]


class AskPart(Question, frozen=True, tag=True, kw_only=True):
    """A worker asks for a part of a file that it was told of."""

    sha256: Digest
    offset: Count


class Part(Question, frozen=True, tag=True, kw_only=True):
    """A part of a file. Buffer: `content` (byte,) uint8, not more than `PART_BYTES`."""

    BUFFERS: ClassVar[tuple[str, ...]] = ("content",)


class AskLeases(Question, frozen=True, tag=True, kw_only=True):
    """A worker has room for more frames. What it was given and does not hold was lost: it is given again.

    The answer comes when there are frames, or without any within a quarter of a second.
    """

    held: Annotated[tuple[Count, ...], Meta(max_length=MOST_LEASES)] = ()  # numbers of leases
    room: Annotated[int, Meta(ge=0, le=MOST_LEASES)] = 0  # for so many more
    patch_px: Annotated[int, Meta(ge=1, le=4096)]  # side of the patches that it makes


class Lease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Frames that one worker is to work on; they are given to another if it is silent."""

    lease: Count
    scan: Name
    frame_shape: tuple[Side, Side]
    frame_dtype: Dtype
    files: Annotated[tuple[SharedFile, ...], Meta(max_length=2)] = ()  # the newest found or tuned in the scan


class Leases(Question, frozen=True, tag=True, kw_only=True):
    """What the worker is given. Buffers: for each lease `numbers` (frame,) int64, ascending."""

    leases: Annotated[tuple[Lease, ...], Meta(max_length=MOST_LEASES)] = ()


class Fetch(Question, frozen=True, tag=True, kw_only=True):
    """A worker asks for values of a column. Buffer: `numbers` (frame,) int64."""

    BUFFERS: ClassVar[tuple[str, ...]] = ("numbers",)

    scan: Name
    column: Name


class Values(Question, frozen=True, tag=True, kw_only=True):
    """The values asked for. Buffer: `values` (frame, ...) of the column's dtype and shape."""

    BUFFERS: ClassVar[tuple[str, ...]] = ("values",)


class Result(Question, frozen=True, tag=True, kw_only=True):
    """What a worker has made of the frames of a lease, all of them.

    Buffers, in order: `patches` (frame, y, x) complex64; `sigma` (frame, y, x) float16, radians of phase;
    `models` (frame,) uint64, which weights made each; `good` (frame,) uint8, 0 where a value is not finite.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("patches", "sigma", "models", "good")

    lease: Count


class Taken(Question, frozen=True, tag=True, kw_only=True):
    """The run has what the worker has made, or had it already."""


class Leave(Question, frozen=True, tag=True, kw_only=True):
    """A worker's last word, which is not answered: others may have what it holds."""


class Refused(Question, frozen=True, tag=True, kw_only=True):
    """The run cannot answer a question, and why."""

    reason: Reason


AnyRemote = (
    Hello
    | Welcome
    | Reject
    | AskSetup
    | Setup
    | AskPart
    | Part
    | AskLeases
    | Leases
    | Fetch
    | Values
    | Result
    | Taken
    | Leave
    | Refused
)
DECODER: msgspec.msgpack.Decoder[AnyRemote] = msgspec.msgpack.Decoder(AnyRemote)
DIALECT = Dialect(
    PROTOCOL,
    hashlib.sha256(msgspec.json.encode(msgspec.json.schema(AnyRemote), order="sorted")).hexdigest()[:16],
)
