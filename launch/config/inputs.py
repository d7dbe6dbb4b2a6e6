"""Settings of what comes in: where things are, frames, positions and the probe.

The texts below the fields are shown in errors.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from launch.config.section import EndpointSection, InputPath, Section
from operators.geometry import Geometry


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
    is_guess: bool = False
    """whether the first frames correct the defocus and the shape of a known probe, for a network"""
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
