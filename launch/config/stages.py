"""Settings of what works on the frames and shows the result.

The texts below the fields are shown in errors.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from launch.config.section import EndpointSection, Fraction, InputPath, OutputPath, Section
from operators.engine.config import RefinerConfig

DEMO_WEIGHTS = Path(__file__).parents[1] / "weights" / "physics-64.safetensors"

_ENGINE = RefinerConfig()


def _demo_weights(value: object) -> object:
    return DEMO_WEIGHTS if value == "demo" else value


class NetworkSection(Section):
    """The network that gives the first image of every frame."""

    weights: Annotated[InputPath | None, BeforeValidator(_demo_weights)] = None
    """weights file, `demo` for the ones that come with the package, nothing for no network"""
    batch_size: PositiveInt = 8
    """most frames per run of the network; a GPU wants hundreds"""
    deadline_s: PositiveFloat = 0.02
    """a frame waits no longer than this for its batch to fill, seconds"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the network runs; auto is CUDA where there is a device"""
    threads: PositiveInt = 1
    """cores the network may use or, where it runs on a GPU, storing what it makes"""
    disagreement: Literal["none", "dropout", "ensemble", "round_robin"] = "none"
    """what else tells the uncertainty: the spread of thinned copies of the network, that of `members` for
    every frame, or `members` that take turns, so that overlapping frames disagree"""
    members: tuple[InputPath, ...] = ()
    """weights files beside `weights`, for `ensemble` and `round_robin`; not together with `finetune`"""
    dropout: Fraction = 0.1
    """share of channels that a thinned copy has lost"""
    dropout_samples: PositiveInt = 8
    """thinned copies"""

    @model_validator(mode="after")
    def _has_members(self) -> Self:
        needs_members = self.disagreement in ("ensemble", "round_robin")
        if needs_members != bool(self.members):
            raise ValueError(
                f"members are the weights beside `weights` that disagreement: ensemble or round_robin needs; "
                f"got disagreement: {self.disagreement} and {len(self.members)} members"
            )
        return self


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
    levels: bool = _ENGINE.levels
    """whether slow variations of phase are taken from the centroids of the patterns as a scan closes"""
    epochs: PositiveFloat = 40.0
    """visits per frame after which the object is done; the last frames get a quarter of them in any case"""
    first_frames: PositiveInt = 32
    """frames to wait for before refining begins"""
    publish_s: PositiveFloat = 0.5
    """shortest time between two states of the object, seconds"""
    seed: NonNegativeInt = _ENGINE.seed
    """of the order in which frames are visited"""
    device: Literal["auto", "numpy", "compiled", "cupy", "cupy-fused"] = "auto"
    """what runs an update; auto is CuPy where it sees a device, or compiled loops, or NumPy"""
    threads: PositiveInt = 1
    """cores the refinement may use"""

    def refiner(self) -> RefinerConfig:
        """Returns what the engine is told."""
        return RefinerConfig(**{name: getattr(self, name) for name in RefinerConfig.__slots__})


class FinetuneSection(Section):
    """Learning the sample while it is scanned: the network's weights are tuned to what is refined."""

    enabled: bool = False
    """whether weights are tuned during a scan"""
    budget_s: PositiveFloat = 120.0
    """processor seconds that learning may take in a scan"""
    share: Fraction = 1.0
    """of one core that it may take meanwhile, 0 to 1"""
    first_frames: PositiveInt = 64
    """refined frames from which on there is something to learn from"""
    least_visits: PositiveInt = 12
    """visits of refinement before a frame is learned from"""
    offer_s: PositiveFloat = 10.0
    """processor seconds between two versions that are tried on frames kept aside"""
    least_gain: Fraction = 0.03
    """share by which a version must be better on these frames to be used"""
    most_forgotten: NonNegativeFloat = 0.1
    """share by which it may be worse on what the weights were trained on"""
    learning_rate: PositiveFloat = 5e-4
    """of Adam"""
    replayed: Annotated[float, Field(ge=0, lt=1)] = 0.65
    """share of old samples in what is learned from"""


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
    controls: bool = False
    """whether the page may also hold, stop and restrict a scan when other machines can reach it"""


class PolicySection(EndpointSection):
    """Advice on where to measure next, for plans that ask (launch.plans.adaptive)."""

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
    dwell_s: PositiveFloat | None = None
    """time of one exposure, s; with `speed`, where moving takes long the policy stays near"""
    speed: PositiveFloat | None = None
    """of the motors, in the unit of `positions` per second"""
    seed: NonNegativeInt = 0
    """of the survey and the candidates"""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.enabled and self.limits is None:
            raise ValueError("the policy needs `limits`: motor positions ((y_low, y_high), (x_low, x_high))")
        if (self.dwell_s is None) != (self.speed is None):
            raise ValueError("the policy needs `dwell_s` and `speed` together, or neither")
        return self


class StoreSection(Section):
    """The catalogue that finished scans are registered in; needs the extra `beamline`."""

    enabled: bool = False
    """whether scans are registered"""
    path: OutputPath | None = None
    """folder of the catalogue; `store` inside `save` when left out"""
    timeout_s: PositiveFloat = 120.0
    """a scan that is not registered after so long goes without, seconds"""
