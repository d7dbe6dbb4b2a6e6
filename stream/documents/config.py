"""Where positions come from and what they mean: the section `positions` of the configuration."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from stream.documents.position_reader import PositionFields
from stream.files.endpoint_section import EndpointSection
from stream.files.paths import InputPath, OutputPath
from stream.wire import addresses


class PositionsConfig(PositionFields, EndpointSection):
    """Where the probe was for every frame."""

    source: Literal["documents", "file", "pva"] = "documents"
    """bluesky documents as they are published, a file of a known trajectory, or EPICS PVs"""
    address: str = addresses.POSITIONS
    """where bluesky publishes to: tcp://host:port or ipc://path"""
    bind: bool = True
    """whether this side owns the address and bluesky's publisher connects"""
    path: InputPath | None = None
    """.cxi, .npy, .csv or text with one position per frame, for source 'file'"""
    pvs: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    """for source 'pva': the PVs of y and x, arrays that grow during the scan, or one table of both"""
    numbers: str = ""
    """column of a table that says of which frame a row is; without it row n is capture n of the scan"""
    first_number: NonNegativeInt = 0
    """what that column calls the first frame"""
    queue: PositiveInt = 20_000
    """messages held when this side is late"""
    series_key: str = "detector_series_id"
    """key of the start document that names the detector's series"""
    late_s: PositiveFloat = 5.0
    """how long positions may come after the last frame, seconds"""
    folders: tuple[OutputPath, ...] = ()
    """folders from which files are read that documents name (fly scans, PandA); no others are"""
    root_map: dict[str, OutputPath] | None = None
    """folders as the documents name them, and where they are mounted here; these are read as well"""
    field_m: PositiveFloat = 1.0e-3
    """largest distance of a position from the first ones of its scan, metres; wild readings are rejected"""

    settling_frames: NonNegativeInt = 0
    """first frames of a series, or of each line, while the stage still moves: recorded, and in no image"""
    line_frames: NonNegativeInt = 0
    """frames of a line, for `settling_frames`; 0 counts them once, from the start of the series"""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.source == "pva") != bool(self.pvs):
            raise ValueError(f"`pvs` are what source 'pva' needs, got {len(self.pvs)} and {self.source!r}")
        if len(self.pvs) == 2 and (self.settled or self.numbers):
            raise ValueError("`settled` and `numbers` are columns of a table: name one PV, or neither")
        if self.numbers and (self.captures_per_frame or 1) > 1:
            raise ValueError("rows that have `numbers` are of one frame each: wanted captures_per_frame 1")
        if self.source == "file" and self.path is None:
            raise ValueError("source 'file' needs `path`")
        if self.source == "file" and self.settled:
            raise ValueError("`settled` is a field of documents: give frames of a file no position instead")
        if 0 < self.line_frames <= self.settling_frames:
            raise ValueError(
                f"settling_frames: wanted fewer than the {self.line_frames} of a line, "
                f"got {self.settling_frames}"
            )
        says_unit = self.source == "file" and self.path is not None and self.path.suffix in (".cxi", ".h5")
        if self.unit is None and not says_unit:
            raise ValueError("`unit` is required: one of m, mm, um, nm")
        return self

    def meaning(self) -> PositionFields:
        """Returns what the positions of the documents mean that its source makes."""
        return self
