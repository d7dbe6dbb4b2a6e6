"""What the stage on another machine is built from: settings and files, told by the run and taken up there."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from stream.remote.files import SharedFiles
from stream.remote.messages import Role, Setup, SharedFile
from stream.stages.config import GeometryConfig, NetworkConfig
from stream.stages.inputs import Optics

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
    told = _Told(
        network.model_dump(mode="json", exclude=left_out),
        optics.config.model_dump(mode="json", exclude={"mask"}),
    )
    return Setup(
        settings=msgspec.json.encode(told).decode(),
        files=tuple(files.share(path, role) for role, path in named if path is not None),
    )


def by_role(files: Sequence[SharedFile], paths: Mapping[str, Path]) -> Paths:
    """Returns where fetched files lie, by role, members in their order; `paths` are by SHA-256."""
    roles: dict[str, list[Path]] = {}
    for file in files:
        roles.setdefault(file.role, []).append(paths[file.sha256])
    return roles


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
    weights, mask, probe = (next(iter(paths.get(role, ())), None) for role in ("weights", "mask", "probe"))
    here = {"weights": weights, "members": tuple(paths.get("member", ())), "device": device}
    network = NetworkConfig.model_validate(told.network | here | {"threads": threads})
    return network, Optics(GeometryConfig.model_validate(told.geometry | {"mask": mask}), probe)
