"""Where positions come from and what they mean: the section `positions` of the configuration."""

import re
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

SourceName = Literal["documents", "panda", "panda-json", "pva", "detector", "growing-file", "file"]
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx5", ".cxi")
_OWN_ADDRESS = ("panda", "panda-json")  # to whose address we connect
_NEEDED = {
    "panda": ("address", "y", "x"),
    "panda-json": ("address", "y", "x"),
    "detector": ("y", "x"),
    "file": ("path",),
}
_NUMBERED = ("growing-file", "panda", "pva")  # whose rows may say of which frame they are


class PositionsConfig(PositionFields, EndpointSection):
    """Where the probe was for every frame."""

    source: SourceName = "documents"
    """bluesky documents as they are published, a PandA's data stream, the JSON that its relay publishes,
    EPICS PVs, the user data of the detector's messages, a file that is written while the scan runs, or one
    of a known trajectory"""
    address: str = addresses.POSITIONS
    """where bluesky publishes to, the relay does, or the PandA is (its port 8889): tcp://host:port or
    ipc://path"""
    bind: bool = True
    """whether this side owns the address and the publisher connects; false for a PandA and its relay"""
    path: InputPath | None = None
    """.cxi, .npy, .csv or text with one position per frame, for source 'file'"""
    pvs: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    """for source 'pva': the PVs of y and x, arrays that grow during the scan, or one table of both"""
    growing_path: OutputPath | None = None
    """for source 'growing-file': text or HDF5 with a row per frame; a path, or a pattern with * of which each
    scan has a file. {series} in it stands for what the detector calls the series"""
    take_existing: bool = False
    """whether such a file that is there before the run begins, and does not change, is the first scan's;
    otherwise it is an earlier one's"""
    numbers: str = ""
    """column of a table or file, or captured field of a PandA, that says of which frame a row is; without it
    row n is capture n of the scan"""
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

    @model_validator(mode="before")
    @classmethod
    def _connects(cls, values: object) -> object:
        """Connect to those that own their address, if nothing else is said."""
        if isinstance(values, dict) and values.get("source") in _OWN_ADDRESS:
            return {"bind": False} | values
        return values

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> Self:
        needed = _NEEDED.get(self.source, ())
        missing = [name for name in needed if name not in self.model_fields_set or not getattr(self, name)]
        if missing:
            raise ValueError(f"source {self.source!r} needs {' and '.join(f'`{name}`' for name in missing)}")
        return self

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        for source, setting in (("pva", self.pvs), ("growing-file", self.growing_path)):
            if (self.source == source) != bool(setting):
                what = "`pvs` are" if source == "pva" else "`growing_path` is"
                raise ValueError(f"{what} what source {source!r} needs, the source is {self.source!r}")
        if len(self.pvs) == 2 and (self.settled or self.numbers):
            raise ValueError("`settled` and `numbers` are columns of a table: name one PV, or neither")
        if self.numbers and (self.captures_per_frame or 1) > 1:
            raise ValueError("rows that have `numbers` are of one frame each: wanted captures_per_frame 1")
        if self.numbers and self.source not in _NUMBERED:
            raise ValueError(f"`numbers` is for sources {', '.join(_NUMBERED)}, got {self.source!r}")
        if self.source == "file" and self.settled:
            raise ValueError("`settled` is a field of documents: give frames of a file no position instead")
        if self.monitor and self.source != "documents":
            raise ValueError(f"`monitor` is a field of bluesky documents, the source is {self.source!r}")
        if 0 < self.line_frames <= self.settling_frames:
            raise ValueError(
                f"settling_frames: wanted fewer than the {self.line_frames} of a line, "
                f"got {self.settling_frames}"
            )
        if self.unit is None and not self.is_cxi and not self._says_unit:
            raise ValueError("`unit` is required: one of m, mm, um, nm")
        return self

    @property
    def has_address(self) -> bool:
        """Whether positions come through a ZeroMQ socket of ours."""
        return self.source in ("documents", "panda-json")

    @property
    def told(self) -> tuple[str, ...]:
        """Keys of the detector's user data that are positions, none where these come otherwise."""
        return tuple(filter(None, (self.y, self.x, self.settled))) if self.source == "detector" else ()

    @property
    def where(self) -> str:
        """Where positions come from, for people."""
        others = {"growing-file": self.growing_path, "file": self.path, "pva": " and ".join(self.pvs)}
        return str(others.get(self.source, self.address))

    @property
    def _says_unit(self) -> bool:
        return self.source == "file" and self.path is not None and self.path.suffix in (".cxi", ".h5")

    @property
    def is_cxi(self) -> bool:
        """Whether positions are a CXI file's translation, which says itself what it means."""
        path = self.growing_path
        return self.source == "growing-file" and not self.y and bool(path and path.suffix in HDF5_SUFFIXES)

    def meaning(self) -> PositionFields:
        """Returns what the positions of the documents mean that the source makes."""
        if self.is_cxi:
            return self.changed(unit="m", signs=(1, 1))
        if self.source == "documents" or self.source == "file":
            return self
        names = {key: field_name(getattr(self, key)) for key in ("y", "x", "settled")}
        return PositionFields(**{key: getattr(self, key) for key in PositionFields.model_fields} | names)


def field_name(name: str) -> str:
    """Returns a name as a field of documents may have it: bluesky allows neither dots nor slashes."""
    return re.sub(r"[./]+", "_", name.strip("/"))
