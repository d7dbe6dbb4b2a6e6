"""What is set beside the stages: tuning during a scan, the web page and the store.

Each class is a section of the configuration file, and what its stage takes. The texts below the fields are
shown in errors and in the reference.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from operators.section import Fraction, Section
from stream.files.paths import InputPath, OutputPath
from stream.wire.pva import check_host

_UNITS = {"MB": 1e6, "GB": 1e9, "TB": 1e12}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEAST_TOKEN = 16  # letters: fewer could be guessed


class FinetuneConfig(Section):
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


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return re.fullmatch(r"[\w.-]+", name) is not None
    return True


class ViewerConfig(Section):
    """The web page."""

    enabled: bool = True
    """whether a page is served"""
    host: str = "127.0.0.1"
    """address the page is served on"""
    port: Annotated[int, Field(ge=0, le=65535)] = 8010
    """port of the page; 0 takes a free one"""
    hosts: tuple[str, ...] = ()
    """further names by which browsers reach it, that of a proxy too; then others do, also on the loopback"""
    insecure: bool = False
    """allows a host that other machines can reach; the page has no password"""
    controls: bool = False
    """whether the page may also hold, stop and restrict a scan when other machines can reach it"""
    metrics_token: InputPath | None = None
    """file with the token of programs that ask for /metrics and /status.json; other machines need one"""
    steering_token: InputPath | None = None
    """file with the token of programs that steer at /steer; without it none may, not even on this computer"""

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _is_host(host):
                raise ValueError(f"wanted names without https://, port and path, got {host!r}")
        return hosts

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.enabled and self.host not in LOOPBACK and not self.insecure:
            raise ValueError(
                f"the page at {self.host} can be seen from other machines and has no password: use host "
                "127.0.0.1 (and an SSH tunnel), or say `insecure: true` if the network is trusted"
            )
        return self

    @property
    def is_private(self) -> bool:
        """Whether this computer alone reaches the page: it is on the loopback, and no proxy is before it."""
        return self.host in LOOPBACK and not self.hosts

    @property
    def may_steer(self) -> bool:
        """Whether who sees the page may also steer, where there is something to steer."""
        return self.is_private or self.controls

    def read_token(self, name: Literal["metrics_token", "steering_token"] = "metrics_token") -> str:
        """Returns what programs that watch the run, or steer it, have to bear, "" where no token is set.

        Raises
        ------
        ValueError
            If its file cannot be read, or holds what no token is.
        """
        file: Path | None = getattr(self, name)
        if file is None:
            return ""
        try:
            token = file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"viewer.{name}: {file} cannot be read: {error}") from error
        if len(token) < LEAST_TOKEN or not (token.isprintable() and token.split() == [token]):
            raise ValueError(
                f"viewer.{name}: {file} holds no token: wanted one word of at least {LEAST_TOKEN} letters "
                "and digits"
            )
        return token


class PvaConfig(Section):
    """The live image as EPICS PVs, for areaDetector's viewers and operator screens; needs the extra `pva`."""

    enabled: bool = False
    """whether amplitude, phase and sigma are served as PVs (NTNDArray), with a few numbers beside them"""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_:.{}<>-]{1,40}$")] = "PTYCHO:"
    """what the names of the PVs begin with: PTYCHO:Phase"""
    host: str = "127.0.0.1"
    """address of this computer that they are served on"""
    insecure: bool = False
    """allows a host that other machines can reach; PVs have no password, and nobody can write to these"""
    interval_s: PositiveFloat = 0.5
    """shortest time between two images, seconds"""

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.enabled:
            check_host(self.host, insecure=self.insecure)
        return self


class ResultsConfig(Section):
    """What is made of a finished scan beside its result."""

    product: bool = False
    """whether the result is written once more as a product of ptychodus, results/NAME.h5"""
    # Two halves are reconstructed, by a process that gives way to everything else.
    resolution: Literal["auto", "always", "never"] = "auto"
    """whether it is measured when a scan has ended; auto: where that takes less than half a minute"""
    orientation: bool = True
    """whether the first 200 frames of a run are asked if signs, axes and beam centre are right, by a process
    that gives way to everything else; what they contradict is a warning"""


class FinisherConfig(Section):
    """What remains of a scan, closing epochs and final stitch, when the next one has begun."""

    order: Literal["oldest", "newest"] = "oldest"
    """which of several scans that wait is finished first"""
    threads: PositiveInt = 1
    """cores that finishing may use; the running scan comes first on each of them"""


class StoreConfig(Section):
    """The catalogue that finished scans are registered in; needs the extra `beamline`."""

    enabled: bool = False
    """whether scans are registered"""
    path: OutputPath | None = None
    """folder of the catalogue; `store` inside `save` when left out"""
    timeout_s: PositiveFloat = 120.0
    """a scan that is not registered after so long goes without, seconds"""


class Kept(NamedTuple):
    """How much stays of what may go: scans, or bytes on the disk."""

    n_scans: float = float("inf")
    n_bytes: float = float("inf")


def kept(keep: str) -> Kept:
    """Returns what `20 scans` or `500 GB` says.

    Raises
    ------
    ValueError
        If it says something else.
    """
    if (found := re.fullmatch(r"([1-9]\d*) scans?", keep)) is not None:
        return Kept(n_scans=int(found[1]))
    if (found := re.fullmatch(r"(\d+(?:\.\d+)?) ?([MGT]B)", keep)) is not None:
        return Kept(n_bytes=float(found[1]) * _UNITS[found[2]])
    raise ValueError(f"keep: {keep!r}: wanted so many scans, '20 scans', or a size, '500 GB'")
