"""What one run is told: sections of settings, each with its unit, its bounds and its meaning.

Separate from `launch.config_file`, which reads YAML, so that a program can build a `Config` without a file.
The texts below the fields are shown in errors. Called by every command, and by the stage processes, which
read the same `Config` back from the run file.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)

from operators.geometry import Geometry
from operators.refinement import RefinerConfig
from stream.sockets import Endpoint

DEMO_WEIGHTS = Path(__file__).parent / "weights" / "physics-64.safetensors"

_ENGINE = RefinerConfig()


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Makes a path absolute, seen from the folder of the configuration file."""
    folder = (info.context or {}).get("folder", Path.cwd())
    return (folder / path.expanduser()).resolve()


def _existing(path: Path, info: ValidationInfo) -> Path:
    path = _absolute(path, info)
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    return path


def _demo_weights(value: object) -> object:
    return DEMO_WEIGHTS if value == "demo" else value


OutputPath = Annotated[Path, AfterValidator(_absolute)]
InputPath = Annotated[Path, AfterValidator(_existing)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """One mapping of a configuration file: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )


class GeometrySection(Section):
    """Where detector and sample are, and which part of a frame is used."""

    energy_ev: PositiveFloat
    """photon energy, eV"""
    detector_distance_m: PositiveFloat
    """sample to detector, metres"""
    detector_pixel_m: PositiveFloat
    """pitch of the detector's own pixels, metres"""
    n_pixels: PositiveInt
    """side of a pattern after binning, pixels"""
    centre: tuple[NonNegativeInt, NonNegativeInt] | None = None
    """detector pixel (row, column) of the direct beam; the middle of the frame when left out"""
    binning: PositiveInt = 1
    """side of the square of detector pixels that becomes one pixel"""
    mask: InputPath | None = None
    """.npy file of the frame's shape, true where a detector pixel is valid"""
    photons_per_count: PositiveFloat = 1.0
    """gain of the detector"""

    def geometry(self) -> Geometry:
        """Returns the geometry of the patterns."""
        return Geometry(
            energy_ev=self.energy_ev,
            detector_distance_m=self.detector_distance_m,
            detector_pixel_m=self.detector_pixel_m * self.binning,
            n_pixels=self.n_pixels,
        )


class EndpointSection(Section):
    """An address and who may use it."""

    address: str
    """tcp://host:port or ipc://path"""
    bind: bool = False
    """whether this side owns the address and the other connects"""
    insecure: bool = False
    """allows an address that other machines can reach without encryption"""
    key: InputPath | None = None
    """own CURVE secret key file, as written by `ptychostream keys`"""
    peers: InputPath | None = None
    """public key file of the server, or with `bind` the folder of allowed clients' public keys"""

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        self.endpoint().check()
        return self

    def endpoint(self) -> Endpoint:
        """Returns the address as sockets take it."""
        return Endpoint(
            address=self.address, bind=self.bind, insecure=self.insecure, key=self.key, peers=self.peers
        )


class DetectorSection(EndpointSection):
    """The detector's stream of frames."""

    pattern: Literal["PULL", "SUB"] = "PULL"
    """PULL from a detector that pushes, SUB to one that publishes"""
    queue: PositiveInt = 1000
    """messages held when the subscriber is late"""
    channel: str = ""
    """which channel of a detector with several; empty when there is one"""
    end_grace_s: NonNegativeFloat = 2.0
    """how long frames may still come after the end of their series, seconds"""
    silence_s: NonNegativeFloat = 0.0
    """a series without frames for so long has ended, seconds; 0 waits for its end message"""
    frame_shape: tuple[PositiveInt, PositiveInt] | None = None
    """rows and columns of a frame; when known, room is reserved early and other frames are refused"""
    frame_dtype: Literal["", "<u1", "<u2", "<u4"] = ""
    """type of the counts, for example <u2, when known"""
    timeout_s: NonNegativeFloat = 0.0
    """gives up when nothing at all came for so long, seconds; 0 waits for ever"""


class PositionsSection(EndpointSection):
    """Where the probe was for every frame."""

    source: Literal["documents", "file"] = "documents"
    """bluesky documents as they are published, or a file of a known trajectory"""
    address: str = "tcp://127.0.0.1:5578"
    """where bluesky publishes to: tcp://host:port or ipc://path"""
    bind: bool = True
    """whether this side owns the address and bluesky's publisher connects"""
    path: InputPath | None = None
    """.cxi, .npy or .csv with one position per frame, for source 'file'"""
    queue: PositiveInt = 20_000
    """messages held when this side is late"""
    y: str = ""
    """motor or field with the vertical position; empty takes the hinted field called y"""
    x: str = ""
    """motor or field with the horizontal position; empty takes the hinted field called x"""
    unit: Literal["m", "mm", "um", "nm"] | None = None
    """unit of the positions; a CXI file carries its own"""
    signs: tuple[Literal[-1, 1], Literal[-1, 1]] = (1, 1)
    """sign of y and x; -1 where a motor moves the sample, not the probe"""
    series_key: str = "detector_series_id"
    """key of the start document that names the detector's series"""
    frames_per_event: PositiveInt = 1
    """frames that share one event document"""
    stream: str = ""
    """name of the document stream; empty takes the first with both fields"""
    late_s: PositiveFloat = 5.0
    """how long positions may come after the last frame, seconds"""
    field_m: PositiveFloat = 1.0e-3
    """largest distance of a position from the first ones of its scan, metres; wild readings are rejected"""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.source == "file" and self.path is None:
            raise ValueError("source 'file' needs `path`")
        if self.unit is None and (self.path is None or self.path.suffix not in (".cxi", ".h5")):
            raise ValueError("`unit` is required: one of m, mm, um, nm")
        return self


class ProbeSection(Section):
    """The illumination that reconstruction starts from."""

    source: Literal["file", "data", "zone_plate"] = "data"
    """a known probe, one found from the first frames, or a computed focus"""
    path: InputPath | None = None
    """.npy or .cxi file with the probe, for source 'file'"""
    n_modes: PositiveInt = 1
    """incoherent modes"""
    photons: PositiveFloat | None = None
    """mean photons per frame of a known probe; a file's own power when left out"""
    scale: bool = True
    """whether refinement scales the probe to the mean photons of the frames; false trusts its power"""
    pupil_radius_px: PositiveFloat | None = None
    """radius of the pupil on the detector, pixels, for source 'zone_plate'"""
    disc_radius_px: NonNegativeFloat | None = None
    """radius of the defocused disc on the sample, pixels, for source 'zone_plate'; 0 is the focus"""
    central_stop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """radius of the central stop over the radius of the pupil, for source 'zone_plate'"""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        needed = {
            "file": ("path",),
            "data": (),
            "zone_plate": ("pupil_radius_px", "disc_radius_px", "photons"),
        }
        for name in needed[self.source]:
            if getattr(self, name) is None:
                raise ValueError(f"source {self.source!r} needs `{name}`")
        return self


class NetworkSection(Section):
    """The network that gives the first image of every frame."""

    weights: Annotated[InputPath | None, BeforeValidator(_demo_weights)] = None
    """weights file, `demo` for the ones that come with the package, nothing for no network"""
    batch_size: PositiveInt = 8
    """frames per call of the network"""
    deadline_s: PositiveFloat = 0.03
    """a frame waits no longer than this for its batch to fill, seconds"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the network runs; auto is CUDA where there is a device"""
    threads: PositiveInt = 1
    """cores the network may use"""


class RefinementSection(Section):
    """The iterative reconstruction that follows the scan."""

    enabled: bool = True
    """false leaves the image to the network alone"""
    algorithm: Literal["epie", "rpie"] = _ENGINE.algorithm
    """extended ptychographic iterative engine, or its regularised successor"""
    object_step: Fraction = _ENGINE.object_step
    """step of the object, 0 to 1"""
    probe_step: Annotated[float, Field(ge=0, le=1)] = _ENGINE.probe_step
    """step of the probe, 0 to 1; 0 holds it"""
    alpha: Fraction = _ENGINE.alpha
    """regularisation of rpie at the first visit, 0 to 1; epie does not read it"""
    probe_start: NonNegativeInt = _ENGINE.probe_start
    """visits of a frame before it takes part in refining the probe"""
    anneal_visits: PositiveFloat = _ENGINE.anneal_visits
    """visits of the frames after which rpie has gone half the way to epie"""
    batch_size: PositiveInt = _ENGINE.batch_size
    """frames per update"""
    noise: Literal["gaussian", "poisson"] = _ENGINE.noise
    """how far a pixel is trusted; poisson is better for patterns of few photons"""
    subpixel: bool = _ENGINE.subpixel
    """whether the probe is shifted by fractions of a pixel; costs about twice the time"""
    refines_positions: bool = _ENGINE.refines_positions
    """whether positions are refined as well; implies subpixel"""
    positions_start: NonNegativeInt = _ENGINE.positions_start
    """visits of a frame before its position moves"""
    epochs: PositiveFloat = 40.0
    """visits per frame after which the object is done; the last frames get a quarter of them in any case"""
    first_frames: PositiveInt = 32
    """frames to wait for before refining begins"""
    publish_s: PositiveFloat = 0.5
    """shortest time between two states of the object, seconds"""
    seed: NonNegativeInt = _ENGINE.seed
    """of the order in which frames are visited"""
    device: Literal["auto", "numpy", "compiled", "cupy"] = "auto"
    """what runs an update; auto is CuPy where it sees a device, or compiled loops, or NumPy"""
    threads: PositiveInt = 1
    """cores the refinement may use"""

    def refiner(self) -> RefinerConfig:
        """Returns what the engine is told."""
        return RefinerConfig(**{name: getattr(self, name) for name in RefinerConfig.__slots__})


class LiveSection(EndpointSection):
    """Where clients fetch the growing image."""

    address: str = "tcp://127.0.0.1:5810"
    """where clients connect to: tcp://host:port, port * for a free one"""
    bind: Literal[True] = True
    """this side always owns the address"""
    tile_px: Annotated[int, Field(ge=8, le=1024)] = 64
    """side of the tiles that are sent when they changed, object pixels"""
    interval_s: PositiveFloat = 0.04
    """shortest time between two versions of the image, seconds"""


class ViewerSection(Section):
    """The web page."""

    enabled: bool = True
    """whether a page is served"""
    host: str = "127.0.0.1"
    """address the page is served on"""
    port: Annotated[int, Field(ge=0, le=65535)] = 8010
    """port of the page; 0 takes a free one"""
    insecure: bool = False
    """allows a host that other machines can reach; the page has no password"""


class PolicySection(EndpointSection):
    """Advice on where to measure next, for plans that ask (launch.adaptive)."""

    enabled: bool = False
    """whether a policy runs beside the pipeline"""
    address: str = "tcp://127.0.0.1:5811"
    """where plans ask: tcp://host:port, port * for a free one"""
    bind: Literal[True] = True
    """this side always owns the address"""
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None
    """lowest and highest motor position of y and of x, in the unit of `positions`"""
    region: tuple[tuple[float, float], tuple[float, float]] | None = None
    """where measuring makes sense, as `limits`; everywhere within them when left out"""
    max_dose: PositiveFloat | None = None
    """photons that any object pixel may get; no limit when left out"""
    target_rad: NonNegativeFloat = 0.0
    """standard uncertainty of the phase at which a scan is done, rad; 0 never"""
    overlap: Fraction = 0.6
    """linear overlap of neighbours on ground that is refined, 0 to 1"""
    seed: NonNegativeInt = 0
    """of the survey and the candidates"""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.enabled and self.limits is None:
            raise ValueError("the policy needs `limits`: motor positions ((y_low, y_high), (x_low, x_high))")
        return self


class StoreSection(Section):
    """The catalogue that finished scans are registered in; needs the extra `beamline`."""

    enabled: bool = False
    """whether scans are registered"""
    path: OutputPath | None = None
    """folder of the catalogue; `store` inside `save` when left out"""
    timeout_s: PositiveFloat = 120.0
    """a scan that is not registered after so long goes without, seconds"""


class Config(Section):
    """Everything one run is told."""

    geometry: GeometrySection
    """where detector and sample are"""
    detector: DetectorSection
    """the stream of frames"""
    positions: PositionsSection
    """where the probe was"""
    probe: ProbeSection = ProbeSection()
    network: NetworkSection = NetworkSection()
    refinement: RefinementSection = RefinementSection()
    live: LiveSection = LiveSection()
    viewer: ViewerSection = ViewerSection()
    policy: PolicySection = PolicySection()
    store: StoreSection = StoreSection()
    save: OutputPath = Path("recordings")
    """folder for scans, results and logs"""

    @model_validator(mode="after")
    def _makes_an_image(self) -> Self:
        if self.network.weights is None and not self.refinement.enabled:
            raise ValueError("nothing makes an image: give `network.weights` or set `refinement.enabled`")
        if self.network.weights is not None and self.probe.source == "data":
            raise ValueError("the network needs a known probe: set `probe.source` to 'file' or 'zone_plate'")
        if self.policy.enabled and (self.probe.source == "data" or self.positions.unit is None):
            raise ValueError("the policy needs a known probe (`probe.source`) and `positions.unit`")
        return self


def config_hash(config: Config) -> str:
    """Returns 16 hexadecimal digits that change with any setting but the folder results go to."""
    settings = config.model_dump(mode="json", exclude={"save"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
