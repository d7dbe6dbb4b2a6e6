"""What the stage on another machine is built from: settings and files, told by the run and taken up there."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from stream.remote.files import SharedFiles
from stream.remote.messages import Role, Setup
from stream.stages.config import GeometryConfig, NetworkConfig, RefinementConfig, Reuse
from stream.stages.inputs import Optics
from stream.stages.refinement.worker import Refinement

GATHER_S = 0.1  # frames to refine have waited for their batch where they come from

Paths = Mapping[str, Sequence[Path]]


class _Told(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of `Setup.settings`: sections by name, without their paths."""

    network: dict[str, object]
    geometry: dict[str, object]


def setup_of(network: NetworkConfig, optics: Optics, files: SharedFiles) -> Setup:
    """Returns what a worker is told; `files` share what it names.

    Raises
    ------
    ValueError
        If there are no weights.
    OSError
        If a file cannot be read.
    """
    if network.weights is None:
        raise ValueError("network.weights: inference on other machines needs weights")
    named: list[tuple[Role, Path | None]] = [("weights", network.weights)]
    named += [("member", path) for path in network.members]
    named += [("mask", optics.config.mask), ("probe", optics.probe)]
    # Where it runs, and on how many cores, is for the other machine to say.
    left_out = {"weights", "fast_weights", "members", "device", "threads"}
    told = _Told(network.model_dump(mode="json", exclude=left_out), _geometry_of(optics))
    return _setup(told, named, files)


def taken_up(settings: str, paths: Paths, *, device: str, threads: int) -> tuple[NetworkConfig, Optics]:
    """Returns what the stage takes, of what the run told and of what this machine has.

    Raises
    ------
    ValueError
        If these are no settings of this version.
    """
    try:
        told = msgspec.json.decode(settings, type=_Told)
    except msgspec.DecodeError as error:
        raise ValueError(f"the run sends no settings of this version: {error}") from error
    here = {"weights": _first(paths, "weights"), "members": tuple(paths.get("member", ())), "device": device}
    network = NetworkConfig.model_validate(told.network | here | {"threads": threads})
    return network, _optics(told.geometry, paths)


class RefinementRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What refinement is told beside its section; as the parameters of `Refinement`."""

    n_modes: int
    scale_probe: bool
    uses_network: bool
    starts_over: bool
    reuse: Reuse = "none"


class _ToldOfRefinement(msgspec.Struct, forbid_unknown_fields=True):
    refinement: dict[str, object]
    geometry: dict[str, object]
    rules: RefinementRules


def refinement_setup_of(
    refinement: RefinementConfig, optics: Optics, rules: RefinementRules, files: SharedFiles
) -> Setup:
    """Returns what a worker that refines is told; `files` share what it names.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    section = refinement.model_dump(mode="json", exclude={"device", "threads"})
    named: list[tuple[Role, Path | None]] = [("mask", optics.config.mask), ("probe", optics.probe)]
    return _setup(_ToldOfRefinement(section, _geometry_of(optics), rules), named, files)


def refinement_taken_up(
    settings: str, paths: Paths, *, device: str, threads: int, clock: Callable[[], float]
) -> Refinement:
    """Returns the stage, of what the run told and of what this machine has; `clock` as of `Refinement`.

    Raises
    ------
    ValueError
        If these are no settings of this version, or this machine has no such device.
    """
    try:
        told = msgspec.json.decode(settings, type=_ToldOfRefinement)
    except msgspec.DecodeError as error:
        raise ValueError(f"the run sends no settings of this version: {error}") from error
    config = RefinementConfig.model_validate(told.refinement | {"device": device, "threads": threads})
    rules = msgspec.structs.asdict(told.rules)
    stage = Refinement(config, _optics(told.geometry, paths), clock=clock, **rules)
    stage.deadline_s = GATHER_S
    return stage


def _setup(told: msgspec.Struct, named: Sequence[tuple[Role, Path | None]], files: SharedFiles) -> Setup:
    shared = tuple(files.share(path, role) for role, path in named if path is not None)
    return Setup(settings=msgspec.json.encode(told).decode(), files=shared)


def _geometry_of(optics: Optics) -> dict[str, object]:
    return optics.config.model_dump(mode="json", exclude={"mask"})


def _optics(geometry: Mapping[str, object], paths: Paths) -> Optics:
    section = GeometryConfig.model_validate({**geometry, "mask": _first(paths, "mask")})
    return Optics(section, _first(paths, "probe"))


def _first(paths: Paths, role: str) -> Path | None:
    return next(iter(paths.get(role, ())), None)
