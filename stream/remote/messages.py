"""What a worker on another machine and its run say to each other.

The worker asks, the run answers. Every question has a number that its answer repeats, and asking it again
changes nothing: whatever is lost between the two is asked again (`stream.remote.asking`).
"""

import hashlib
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from stream.wire.handshake import Dialect
from stream.wire.messages import Count, Dtype, Hello, Message, Name, Pixel, Reason, Reject, Welcome

PROTOCOL = 1
MOST_ANSWER_BYTES = 32 << 20
PART_BYTES = 1 << 20  # of a file in one answer
MOST_LEASES = 8  # that a worker holds
MOST_GIVEN = 4096  # frames to refine that a worker is told of at a time

Side = Annotated[int, Meta(ge=1, le=65536)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Role = Literal[
    "weights",
    "member",
    "mask",
    "probe",
    "found_probe",
    "tuned_weights",
    "snapshot",
    "earlier_probe",
    "earlier_object",
]


class SharedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the run that a worker needs; it asks for it by its contents, never by a path."""

    role: Role
    n_bytes: Annotated[int, Meta(ge=1, le=1 << 30)]
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
    packs: bool = False  # whether they may come compressed


class Values(Question, frozen=True, tag=True, kw_only=True):
    """The values asked for. Buffer: `values` (frame, ...) of the column's dtype and shape.

    Packed they are (byte,) uint8: bslz4 of the values in C order, as detectors frame it.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("values",)

    is_packed: bool = False


class Result(Question, frozen=True, tag=True, kw_only=True):
    """What a worker has made of the frames of a lease, all of them.

    Buffers, in order: `patches` (frame, y, x) complex64; `sigma` (frame, y, x) float16, radians of phase;
    `models` (frame,) uint64, which weights made each; `good` (frame,) uint8, 0 where a value is not finite.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("patches", "sigma", "models", "good")

    lease: Count


class Taken(Question, frozen=True, tag=True, kw_only=True):
    """The run has what the worker has made, or had it already."""


class AskScan(Question, frozen=True, tag=True, kw_only=True):
    """A worker that refines nothing asks for a scan.

    The answer is `Lend`, or within a quarter of a second `Wait`.
    """


class Wait(Question, frozen=True, tag=True, kw_only=True):
    """There is no scan to be refined, or another worker has it."""


class Lend(Question, frozen=True, tag=True, kw_only=True):
    """The scan that a worker is to refine until it hears `Over`; no other refines it meanwhile."""

    lease: Count
    scan: Name
    frame_shape: tuple[Side, Side]
    frame_dtype: Dtype
    patch_px: Annotated[int, Meta(ge=0, le=4096)]  # side of the network's patches, 0 without a network
    joined: Count  # as the counters of the scan
    announced: Annotated[int, Meta(ge=-1, le=2**53)]
    moves: bool = False  # whether positions are refined
    n_refined: Count  # so many of the first frames that are given have taken part in the snapshot
    started_over: bool = False  # as the counters of refinement
    closing_milli: Count = 0
    earlier: Name = ""  # the scan that this one starts from, "" for none
    files: Annotated[tuple[SharedFile, ...], Meta(max_length=4)] = ()


class Leased(Question, frozen=True, kw_only=True):
    """What questions about a lent scan have in common; the answer is `Over` where the lease is over."""

    lease: Count


class AskFrames(Leased, frozen=True, tag=True, kw_only=True):
    """A worker asks which frames it is to refine, after so many that it knows; and says that it lives.

    The answer comes when there are any or no more will come, or without news within a quarter of a second.
    """

    after: Count
    room: Annotated[int, Meta(ge=0, le=MOST_GIVEN)]  # for so many more
    counts: Annotated[dict[Name, Count], Meta(max_length=16)] = msgspec.field(
        default_factory=dict
    )  # how far it is, for people


class Given(Question, frozen=True, tag=True, kw_only=True):
    """Frames to refine, in this order. Buffer: `numbers` (frame,) int64."""

    BUFFERS: ClassVar[tuple[str, ...]] = ("numbers",)

    is_all: bool = False  # no more will come


class Tiles(Leased, frozen=True, tag=True, kw_only=True):
    """Tiles of a state of the object, which `Refined` of that version completes.

    Buffers: `index` (tile, 2) int64, row and column; `object` (tile, y, x) complex64; `illumination`
    (tile, y, x) float32, photons.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("index", "object", "illumination")

    version: Count  # of what this worker has sent in this lease, from 1 on


class Refined(Leased, frozen=True, tag=True, kw_only=True):
    """A state of the object, and the frames that have taken part since the last one.

    Buffers: `probe` (mode, y, x) complex64; `error_history` (epoch,) float64; `withheld` (tile, 2) int64;
    `numbers` (frame,) int64; `visits` (frame,) uint32; `positions_px` (frame, 2) float64 where positions are
    refined, otherwise none; `curve` (epoch, 4) float64, further epochs: which, error, frames, age in seconds.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = (
        "probe",
        "error_history",
        "withheld",
        "numbers",
        "visits",
        "positions_px",
        "curve",
    )

    version: Count
    n_tiles: Count  # that were sent of this version
    bounds: tuple[Pixel, Pixel, Pixel, Pixel]  # top, left, bottom, right
    n_frames: Count
    n_updates: Count
    error: float
    n_divergences: Count
    started_over: bool = False
    n_reused: Count = 0
    closing_milli: Count = 0
    is_last: bool = False  # the scan is done: all tiles have come


class Unusable(Leased, frozen=True, tag=True, kw_only=True):
    """Nothing can come of this scan, and why."""

    reason: Reason


class Over(Question, frozen=True, tag=True, kw_only=True):
    """The lease is over: the worker lets go of the scan, and what it has not sent is not wanted."""


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
    | AskScan
    | Wait
    | Lend
    | AskFrames
    | Given
    | Tiles
    | Refined
    | Unusable
    | Over
    | Leave
    | Refused
)
DECODER: msgspec.msgpack.Decoder[AnyRemote] = msgspec.msgpack.Decoder(AnyRemote)
DIALECT = Dialect(
    PROTOCOL,
    hashlib.sha256(msgspec.json.encode(msgspec.json.schema(AnyRemote), order="sorted")).hexdigest()[:16],
)
