"""The messages between processes: tagged, bounded, immutable; arrays travel beside them as raw buffers.

Anything a peer may send is listed here with its bounds; what does not fit is refused before it is used.
"""

import hashlib
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

PROTOCOL = 2
MAX_REASON = 2000
MOST_FAILED = 4096  # points of a run whose exposure failed

Name = Annotated[str, Meta(max_length=200)]
Reason = Annotated[str, Meta(max_length=MAX_REASON)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Share = Annotated[float, Meta(ge=0, le=1)]
Pixel = Annotated[int, Meta(ge=-(2**31), le=2**31)]
Coordinate = Annotated[float, Meta(ge=-1e12, le=1e12)]  # of a motor, in its own unit
Box = tuple[tuple[Coordinate, Coordinate], tuple[Coordinate, Coordinate]]  # lowest and highest y, and x
Deed = Literal["hold", "resume", "stop", "region", "clear"]
StageLevel = Literal["ok", "busy", "warning", "error", "done"]
RunLevel = Literal["waiting", "live", "stale", "complete", "incomplete"]
Dtype = Annotated[str, Meta(pattern=r"^(\|[ui]1|<[uif][248]|<c8|<c16)$")]


class ArrayHeader(msgspec.Struct, frozen=True, array_like=True):
    """Dtype and shape of one buffer that follows the message."""

    dtype: Dtype
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(max_length=4)]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every message can carry: headers of the buffers behind it."""

    arrays: Annotated[tuple[ArrayHeader, ...], Meta(max_length=16)] = ()


class Hello(Message, frozen=True, tag=True, kw_only=True):
    """First word of a client: which protocol it speaks and who it is."""

    protocol: int  # `PROTOCOL`: another number is another protocol
    schema: Name = ""  # `SCHEMA_HASH`: another one has other fields or bounds; "" of who reads what he knows
    role: Name  # any name for the log; a stage of a run gives its own
    pid: Count = 0


class Welcome(Message, frozen=True, tag=True, kw_only=True):
    """The peer speaks our protocol; this is the run it has reached."""

    run_id: Name


class Reject(Message, frozen=True, tag=True, kw_only=True):
    """The peer cannot be served, and why."""

    reason: Reason


class StageState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one stage of a run was seen to do, for people."""

    name: Name  # detector, positions, probe, inference, refinement, stitcher, recorder, steering ...
    text: Annotated[str, Meta(max_length=500)]
    level: StageLevel  # busy: a person waits for it; warning: it does not do what it should


class FinishingScan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scan that is brought to its end while a later one is the running scan."""

    name: Name
    text: Annotated[str, Meta(max_length=500)]  # how far it is, for people


class FinishedScan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scan that was brought to its end while a later one was running: its last live image is not final."""

    name: Name
    text: Annotated[str, Meta(max_length=500)]  # complete, or what is missing, for people
    result: Annotated[str, Meta(max_length=4096)]  # file of the final image where the run is; "" without one


class RunState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run was seen to do: in one sentence, and stage by stage."""

    scan: Name = ""  # the newest
    level: RunLevel  # stale: what is shown does not follow the scan
    text: Reason
    stages: Annotated[tuple[StageState, ...], Meta(max_length=32)] = ()  # in the order of the way of the data
    finishing: Annotated[tuple[FinishingScan, ...], Meta(max_length=64)] = ()  # in the order of the scans
    finished: Annotated[tuple[FinishedScan, ...], Meta(max_length=16)] = ()  # the last ones, the newest last


class Ready(Message, frozen=True, tag=True, kw_only=True):
    """The stage has everything it needs before the first frame."""

    stage: Name
    address: Name = ""  # where the stage can be reached, when it has its own door


class Progress(Message, frozen=True, tag=True, kw_only=True):
    """A stage is alive and this far; also the doorbell for stages that wait for its column."""

    stage: Name
    scan: Name = ""
    counts: Annotated[dict[Name, int], Meta(max_length=64)] = {}
    state: StageState | None = None  # of a stage that knows more than its counts and ledger tell


class Notice(Message, frozen=True, tag=True, kw_only=True):
    """A stage has something to tell the person at the terminal."""

    stage: Name
    level: Count  # as in Python's logging: 30 a warning, 40 an error
    text: Annotated[str, Meta(max_length=4000)]


class Stop(Message, frozen=True, tag=True, kw_only=True):
    """The stage finishes what it holds and leaves."""


class Ask(Message, frozen=True, tag=True, kw_only=True):
    """A client asks for what is newer than the version it has of a scan; its one credit until answered."""

    scan: Name = ""
    after: Annotated[int, Meta(ge=-1, le=2**53)] = -1  # the version it has; -1 asks for all tiles


class NoNews(Message, frozen=True, tag=True, kw_only=True):
    """Nothing newer yet; the server is alive. The client asks again."""

    counts: Annotated[dict[Name, int], Meta(max_length=64)] = {}
    state: RunState | None = None  # None where no supervisor tells


class MotorAxes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which motor position a pixel is: origin + pitch * (y, x) of the absolute object pixel."""

    unit: Name  # of the motors
    origin: tuple[Coordinate, Coordinate]  # motor position of a probe centred on the absolute pixel (0, 0)
    pitch: tuple[Coordinate, Coordinate]  # motor unit per object pixel, with its sign


class CalibrationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How true the error bars of network ground have turned out.

    Attributes
    ----------
    coverage68, coverage95 : float or None
        Shares of the differences from refined ground within 1 and 1.96 sigma as it was published; None until
        there is refined ground to tell.
    sigma_factor : float
        By which the network's own error bars were scaled to make them true.
    n_calibrated : int
        Tiles that these three rest on.
    alarm : str
        Why error bars of network ground are not to be believed, "" if they are.
    """

    coverage68: Share | None = None
    coverage95: Share | None = None
    sigma_factor: Annotated[float, Meta(gt=0)] = 1.0
    n_calibrated: Count = 0
    alarm: Annotated[str, Meta(max_length=500)] = ""


class ImageFigures(CalibrationRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What there is to say about one version of the live image beside its pixels: the one list of it.

    The stitcher fills it, an update carries it, `stream.live.image.LiveImage` has all of it as its own
    attributes, and the web page gets it whole.

    Attributes
    ----------
    scan, run_id, model, config_hash : str
        What the image belongs to and which weights (at the beginning) and configuration made it; model is ""
        without a network.
    version, frames_seen : int
        Grows with every publication; frames that contributed.
    object_pixel_m : float
        Pitch of the pixels, metres.
    epoch : float
        Epochs of refinement.
    error : float or None
        Amplitude error of the refinement, None while there is none.
    time_to_image_ms : (float, float) or None
        Time to image: median and 99th percentile from the end of the exposure to the first image with the
        frame, over the last 512 frames shown.
    counts : dict of str to int
        Frames expected, recorded, lost, inferred, mosaicked, refined, pending, no_position, settling; what
        is missing is not part of the run.
    models : dict of str to int
        Frames shown, by the weights that made their patch.
    is_final : bool
        Whether the scan is over and nothing more will change.
    note : str
        What the server has to say about this image, for people.
    motors : MotorAxes or None
        What motor positions the pixels are.
    pattern_px : int
        Side of the patterns, pixels.
    """

    scan: Name
    run_id: Name
    version: Count
    object_pixel_m: Annotated[float, Meta(gt=0)]
    frames_seen: Count
    epoch: Annotated[float, Meta(ge=0)]
    model: Name
    config_hash: Name
    error: float | None = None
    time_to_image_ms: tuple[float, float] | None = None
    counts: Annotated[dict[Name, int], Meta(max_length=64)] = {}
    models: Annotated[dict[Name, Count], Meta(max_length=64)] = {}
    is_final: bool = False
    note: Reason = ""
    motors: MotorAxes | None = None
    pattern_px: Annotated[int, Meta(ge=0, le=1 << 16)] = 0


class ObjectUpdate(Message, frozen=True, tag=True, kw_only=True):
    """The tiles of the live image that changed after the version that was asked for.

    Buffers, in order: `tiles` (tile, 2) int32 row and column indices, tile (i, j) covers absolute object
    pixels [i * tile_px, (i + 1) * tile_px); `object` (tile, y, x) complex64; `sigma` (tile, y, x) float32,
    radians of phase; `photons` (tile, y, x) float32, photons that fell on the pixel; `source` (tile, y, x)
    uint8: 0 nothing, 1 network mosaic, 2 refined; `frames` (frame,) int32, the numbers of the frames that are
    shown since the version that was asked for, ascending; `path` (frame, 2) float32, their probe centres in
    absolute object pixels (y, x); `told` (frame,) int32, the numbers of the frames whose moments are new,
    shown or not, ascending; `moments` (frame, 6) float32, their probe centres, and of their patterns photons,
    centroid (y, x) in pixels from zero frequency, and width in the same. The last two may be missing.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = (
        "tiles", "object", "sigma", "photons", "source", "frames", "path", "told", "moments",
    )  # fmt: skip

    tile_px: Annotated[int, Meta(ge=1, le=4096)]
    bounds: tuple[Pixel, Pixel, Pixel, Pixel]  # top, left, bottom, right of what was illuminated
    figures: ImageFigures
    state: RunState | None = None  # None where no supervisor tells


class Consult(Message, frozen=True, tag=True, kw_only=True):
    """A plan tells the policy what it has triggered and asks where to measure next.

    Buffer: `measured` (point, 2) float64, motor positions (y, x) of every exposure triggered in this run, in
    order. All of them each time: whoever answers may have been started anew.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("measured",)

    run: Name  # uid of the plan's run
    question: Count  # numbered by the plan; the answer repeats it
    after: Annotated[int, Meta(ge=-1, le=2**53)]  # the highest sequence number the plan has taken
    n_points: Annotated[int, Meta(ge=1, le=65536)]  # how many it wants at most
    heard: Count = 0  # the highest number of a control that the plan knows of
    held: bool = False  # whether a person holds the run
    region: Box | None = None  # to which the run is restricted, motor positions
    # recommended, but the exposure failed: motor positions (y, x), all of the run so far
    failed: Annotated[tuple[tuple[Coordinate, Coordinate], ...], Meta(max_length=MOST_FAILED)] = ()


class Recommendation(Message, frozen=True, tag=True, kw_only=True):
    """Where the policy would measure next, and why; the plan decides.

    Buffer: `points` (point, 2) float64, motor positions (y, x) in the order of travel.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("points",)

    run: Name  # of the question
    question: Count  # which one this answers
    sequence: Count  # above every one the plan has taken, also after the policy was started anew
    scan: Name = ""  # of the image it was derived from
    frames_seen: Count = 0  # frames in the image it was derived from
    n_measured: Count = 0  # exposures it took into account
    map_hash: Name = ""  # of the weights and distances that decided
    expires_s: Annotated[float, Meta(gt=0, le=86400)] = 60.0  # older than that it must not be followed
    predicted_gain: Annotated[float, Meta(ge=0)] = 0.0  # fall of the weighted phase variance, rad^2 x pixels
    shown_predicted_gain: float = 0.0  # what was predicted of the last batch that the image shows
    realised_gain: float = 0.0  # what came true of it, on the ground that the prediction was about
    stop: bool = False  # whether the scan should end; `reasons` say why
    reasons: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=16)] = ()


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a person said to a steered run."""

    number: Annotated[int, Meta(ge=1, le=2**53)]  # in the order in which they were said
    deed: Deed
    region: Box | None = None  # motor positions; of the deed `region`
    by: Name = ""  # who said it


class Controls(Message, frozen=True, tag=True, kw_only=True):
    """The policy passes on to the plan what persons have said; one that is known already changes nothing."""

    run: Name
    controls: Annotated[tuple[Control, ...], Meta(max_length=64)]


class Decided(Message, frozen=True, tag=True, kw_only=True):
    """The plan tells the policy what it does and why: the same as in its run, for those who watch."""

    run: Name
    source: Name  # agent, planned, person or end
    reason: Reason
    n_points: Count = 0
    n_left: Count = 0  # exposures that the plan may still make


class Command(Message, frozen=True, tag=True, kw_only=True):
    """A person has something to say to the steered run; the answer is `Steering` or `Reject`."""

    deed: Deed
    region: Box | None = None  # motor positions; of the deed `region`
    by: Name = ""  # who says it


class AskSteering(Message, frozen=True, tag=True, kw_only=True):
    """A person asks how the steering stands; the answer is `Steering`."""


class Steering(Message, frozen=True, tag=True, kw_only=True):
    """How the steering stands, for people.

    Buffer: `points` (point, 2) float64, motor positions (y, x) recommended last.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("points",)

    plan: Literal["none", "running", "ended"] = "none"
    run: Name = ""  # of the plan's conversation
    asked_s: Annotated[float, Meta(ge=0)] = 0.0  # since the plan was last heard
    held: bool = False  # by a person
    stopped: bool = False  # by a person
    region: Box | None = None  # to which the run is restricted, motor positions
    limits: Box  # of the policy, motor positions
    unit: Name  # of the motors
    origin: tuple[Coordinate, Coordinate]  # motor position of a probe centred on the absolute pixel (0, 0)
    pitch: tuple[Coordinate, Coordinate]  # motor unit per object pixel, with its sign
    n_measured: Count = 0  # exposures of the run
    n_failed: Count = 0  # points of the run whose exposure failed
    n_left: Count = 0  # exposures that the plan may still make
    sequence: Annotated[int, Meta(ge=-1, le=2**53)] = -1  # of the last recommendation
    dose_peak: Annotated[float, Meta(ge=0)] = 0.0  # photons on the pixel that has most
    max_dose: Annotated[float, Meta(gt=0)] | None = None  # photons that any pixel may get
    predicted_gain: float = 0.0  # as in `Recommendation`
    shown_predicted_gain: float = 0.0  # as in `Recommendation`
    realised_gain: float = 0.0  # as in `Recommendation`
    reasons: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=16)] = ()
    source: Name = ""  # of the plan's last decision
    reason: Reason = ""
    controls: Annotated[tuple[Control, ...], Meta(max_length=64)] = ()  # the last ones, oldest first


AnyMessage = (
    Hello
    | Welcome
    | Reject
    | Ready
    | Progress
    | Notice
    | Stop
    | Ask
    | NoNews
    | ObjectUpdate
    | Consult
    | Recommendation
    | Controls
    | Decided
    | Command
    | AskSteering
    | Steering
)

SCHEMA_HASH = hashlib.sha256(
    msgspec.json.encode(msgspec.json.schema(AnyMessage), order="sorted")
).hexdigest()[:16]
