"""What the stages are told: each class is a section of the configuration file, and what its stage takes.

The texts below the fields are shown in errors and in the reference. Free of PyTorch, so that a configuration
is checked at once.
"""

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from operators.engine.config import ComputeConfig, RefinerConfig
from operators.geometry import Geometry
from operators.optics.preprocess import Preprocess
from operators.section import Fraction, Section
from stream.files.endpoint_section import EndpointSection
from stream.files.paths import InputPath
from stream.wire import addresses

MOST_WORKERS = 16  # of which the page shows each
MOST_ELSEWHERE = 64  # workers on other machines


class GeometryConfig(Section):
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
    binning: PositiveInt = Preprocess.binning
    """side of the square of detector pixels that becomes one pixel"""
    mask: InputPath | None = None
    """.npy file of the frame's shape, true where a detector pixel is valid"""
    dark: InputPath | None = None
    """what frames have without beam, taken from each: .npy of the frame's shape or of several such frames,
    or the folder of a recorded scan without beam"""
    flat: InputPath | None = None
    """.npy of the frame's shape: how much each pixel counts of what falls on it; only ratios matter"""
    photons_per_count: PositiveFloat = Preprocess.photons_per_count
    """gain of the detector"""
    transpose: bool = Preprocess.transpose
    """whether rows and columns of the patterns are exchanged, for a detector that is mounted on its side"""
    flip_rows: bool = Preprocess.flip_rows
    """whether patterns are then turned upside down, about the direct beam"""
    flip_columns: bool = Preprocess.flip_columns
    """whether patterns are then mirrored, left and right"""

    def geometry(self) -> Geometry:
        """Returns the geometry of the patterns."""
        return Geometry(
            energy_ev=self.energy_ev,
            detector_distance_m=self.detector_distance_m,
            detector_pixel_m=self.detector_pixel_m * self.binning,
            n_pixels=self.n_pixels,
        )


class ProbeConfig(Section):
    """The illumination that reconstruction starts from."""

    source: Literal["file", "data", "zone_plate"] = "data"
    """a known probe, one found from the first frames, or a computed focus"""
    path: InputPath | None = None
    """.npy, .npz, .cxi or ptychodus product with the probe, for source 'file'"""
    is_guess: bool = False
    """whether the first frames correct the defocus and the shape of a known probe, for a network"""
    # When they are not enough, it is tried again with twice as many, and at the end of the scan with all.
    n_frames: Annotated[int, Field(ge=24)] = 96
    """frames that a probe for a network is found from or corrected by"""
    n_modes: PositiveInt = 1
    """incoherent modes"""
    photons: PositiveFloat | None = None
    """mean incident photons per frame; a file's own power when left out, an estimate when there is none"""
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


class NetworkConfig(Section):
    """The network that gives the first image of every frame."""

    weights: InputPath | None = None
    """weights file, `demo` or `demo-fast` for those that come with the package, nothing for no network"""
    fast_weights: InputPath | None = None
    """of a faster network, taken instead where `detector.rate_hz` is more than the other does here; beside
    `demo` it is `demo-fast` unless null is given"""
    batch_size: PositiveInt = 8
    """most frames per run of the network; a GPU wants hundreds"""
    deadline_s: PositiveFloat = 0.02
    """a frame waits no longer than this for its batch to fill, seconds"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the network runs; auto is CUDA where there is a device"""
    threads: PositiveInt = 1
    """cores each worker may use or, where it runs on a GPU, storing what it makes"""
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 1
    """processes that share the frames; one that dies or is slow costs its share"""
    devices: tuple[Annotated[str, Field(pattern=r"^(cpu|cuda:\d{1,2})$")], ...] = ()
    """which each worker gets, in turn, instead of `device`: for example [cuda:0, cuda:1]"""
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
    def _is_complete(self) -> Self:
        needs_members = self.disagreement in ("ensemble", "round_robin")
        if needs_members != bool(self.members):
            raise ValueError(
                f"members are the weights beside `weights` that disagreement: ensemble or round_robin needs; "
                f"got disagreement: {self.disagreement} and {len(self.members)} members"
            )
        if len(self.devices) > self.workers:
            raise ValueError(
                f"`devices` names {len(self.devices)}, `workers` is {self.workers}: wanted a worker for each"
            )
        return self

    def device_of(self, worker: int) -> str:
        """Returns the device of the worker of this number, from 1 on, "" where it is `device`."""
        return self.devices[(worker - 1) % len(self.devices)] if self.devices else ""


class RefinementConfig(RefinerConfig, ComputeConfig):
    """The iterative reconstruction that follows the scan."""

    enabled: bool = True
    """false leaves the image to the network alone"""
    first_frames: PositiveInt = 32
    """frames to wait for before refining begins"""
    publish_s: PositiveFloat = 0.5
    """shortest time between two states of the object, seconds"""
    # Full steps follow the noise of the frames seen last: from a good start they lead away from the truth.
    seeded_step: Fraction = 0.25
    """share of its step that an object which starts from the network begins with, with a known probe, 0 to 1;
    it doubles in fifteen epochs"""
    frames_gb: PositiveFloat = 4.0
    """most memory for frames, at two bytes a pixel, GB; older ones are read from the scan when needed"""
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """of a core that it gets while one other process wants all of that core; of cores that are idle it takes
    what it can"""


Reuse = Literal["none", "probe", "object"]


class SeriesConfig(Section):
    """Scans of one run that follow each other, such as angles or energies."""

    reuse: Reuse = "none"
    """what a scan starts from that the last one refined: its probe, its probe and object, or nothing"""


class LiveConfig(EndpointSection):
    """Where clients fetch the growing image."""

    address: str = addresses.LIVE
    """where clients connect to: tcp://host:port, port * for a free one"""
    bind: Literal[True] = True
    """this side always owns the address"""
    tile_px: Annotated[int, Field(ge=8, le=1024)] = 64
    """side of the tiles that are sent when they changed, object pixels"""
    interval_s: PositiveFloat = 0.04
    """shortest time between two versions of the image, seconds"""


class RemoteConfig(EndpointSection):
    """Stages on other machines, beside those on this one."""

    enabled: bool = False
    """whether workers on other machines are let in: `ptychostream stage inference --of ADDRESS` there"""
    address: str = addresses.REMOTE
    """where those of inference connect to: tcp://host:port"""
    refinement: Literal["here", "elsewhere", "either"] = "here"
    """where scans are refined: here; by `ptychostream stage refinement --of ADDRESS`, for which they wait; or
    there while there is such a worker and here otherwise"""
    refinement_address: str = addresses.REFINEMENT
    """where those of refinement connect to"""
    bind: Literal[True] = True
    """this side always owns the addresses"""
    cluster: Annotated[str, Field(pattern=f"^({addresses.CLUSTER})?$")] = ""
    """a Ray cluster on which workers are placed: `ray` for the one that this computer belongs to, or
    ray://HOST:10001; keys for them are made for the run, and everything in the cluster is trusted"""
    workers: Annotated[int, Field(ge=0, le=MOST_ELSEWHERE)] = 0
    """how many are placed there; 0 is one for each GPU of the cluster, one for each node where it has none"""

    @model_validator(mode="before")
    @classmethod
    def _is_reachable(cls, values: object) -> object:
        """Take a default that other machines reach, where workers are placed on them."""
        if isinstance(values, dict) and values.get("cluster"):
            reachable = {
                "address": addresses.REMOTE_FROM_ANYWHERE,
                "refinement_address": addresses.REFINEMENT_FROM_ANYWHERE,
            }
            return reachable | values
        return values

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.cluster and not self.enabled:
            raise ValueError("`cluster` places workers on other machines: set `enabled: true`")
        for address in (self.address, *((self.refinement_address,) if self.lends_refinement else ())):
            insecure = self.insecure or self.makes_keys
            replace(self.endpoint(), address=address, insecure=insecure).check()
        return self

    @property
    def makes_keys(self) -> bool:
        """Whether the run makes keys for its door (`stream.remote.placed`), as the configuration has none."""
        return bool(self.cluster) and self.key is None

    @property
    def lends_refinement(self) -> bool:
        """Whether a worker on another machine may refine."""
        return self.enabled and self.refinement != "here"

    def for_refinement(self) -> "RemoteConfig":
        """Returns the same with the address of workers that refine."""
        return self.changed(address=self.refinement_address)
