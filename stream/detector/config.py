"""What the detector is and where it sends: the section `detector` of the configuration."""

import math
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from stream.files.endpoint_section import EndpointSection
from stream.files.paths import OutputPath

_NEEDS = {"files": "path", "pva": "pv"}  # what says where the frames are, where it is no address


class DetectorConfig(EndpointSection):
    """The detector's stream of frames."""

    format: Literal["dectris-v2", "dectris-v1", "jungfraujoch", "json", "files", "pva"] = "dectris-v2"
    """what the detector speaks: DECTRIS Stream V2 or V1, Jungfraujoch's own V2, json for one that somebody
    built; files that it writes; or pva, the NTNDArray of areaDetector's PVA plugin"""
    address: str = ""
    """tcp://host:port or ipc://path, for a format that sends by ZeroMQ"""
    pv: Annotated[str, Field(max_length=200)] = ""
    """name of the PV, for format 'pva'"""
    path: OutputPath | None = None
    """where it writes, for format 'files': an HDF5 file, a folder of them or of TIFFs, or a pattern of such
    names, each of which is a series; it need not be there yet"""
    dataset: str = ""
    """name of the frames in HDF5 files that have several datasets; empty finds them"""
    takes_old: bool = False
    """whether files of a folder or pattern that were complete when the run began are taken as well"""
    first_number: NonNegativeInt | None = None
    """number of the first frame of a series: `uniqueId` for format 'pva', of the file's name for TIFFs; null
    takes it from the series itself"""
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
    subscribers: Annotated[int, Field(ge=1, le=2)] = 1
    """processes that take the frames of a detector that pushes to all who connect; where one of two dies, the
    other goes on, and what the dead one had received is lost"""
    n_triggers: PositiveInt = 1
    """triggers of a series, for a detector that announces the images of one trigger; DECTRIS announces all"""
    frame_shape: tuple[PositiveInt, PositiveInt] | None = None
    """rows and columns of a frame; when known, room is reserved early and other frames are refused"""
    frame_dtype: Literal["", "<u1", "<u2", "<u4"] = ""
    """type of the counts, for example <u2, when known"""
    rate_hz: PositiveFloat | None = None
    """frames a second that are expected, for the choice of a network that keeps up: `network.fast_weights`"""
    timeout_s: NonNegativeFloat = 0.0
    """gives up when nothing at all came for so long, seconds; 0 waits for ever"""

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        needed = _NEEDS.get(self.format, "address")
        if not getattr(self, needed):
            raise ValueError(f"format {self.format!r} needs `{needed}`")
        for other in {"address", *_NEEDS.values()} - {needed}:
            if getattr(self, other):
                raise ValueError(f"`{other}` is not for format {self.format!r}, which has `{needed}`")
        if needed == "address":
            self.endpoint().check()
        elif self.subscribers > 1:
            raise ValueError(f"subscribers: {self.subscribers} share what a detector pushes: wanted 1")
        if self.format in _NEEDS and not self.silence_s:
            raise ValueError(
                f"format {self.format!r} needs `silence_s`: often nothing else tells a series' end"
            )
        return self

    @model_validator(mode="after")
    def _is_shared(self) -> Self:
        if self.subscribers > 1 and self.format == "dectris-v1":
            raise ValueError(
                f"subscribers: {self.subscribers} share series that have a unique id, those of dectris-v1 "
                "have none: wanted 1"
            )
        if self.subscribers > 1 and (self.pattern != "PULL" or self.bind):
            raise ValueError(
                f"subscribers: {self.subscribers} connect to a detector that pushes: wanted pattern PULL and "
                f"bind false, got {self.pattern} and bind {str(self.bind).lower()}"
            )
        return self

    @property
    def where(self) -> str:
        """Where its frames come from, for people."""
        return self.address or (f"PV {self.pv}" if self.pv else str(self.path))

    @property
    def most_bytes(self) -> int:
        """The largest message that a detector with frames of this shape sends, 0 where that is not known.

        A start message has maps of the whole detector for each channel, and tables beside them.
        """
        return 0 if self.frame_shape is None else (16 << 20) + 64 * math.prod(self.frame_shape)
