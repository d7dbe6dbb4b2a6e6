"""What a run needs of this computer and its network: addresses, folders, what is installed."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from launch.config.config import Config
from launch.config.policy import policy_aims
from launch.config.probe import Known
from launch.config.sections import LOOPBACK, ViewerConfig
from launch.extras import missing_extra
from launch.run.claims import LOCK, claim
from launch.run.findings import Finding, Findings, caught
from operators.optics.sampling import readable, roughly
from stream.detector.files.watch import series_at
from stream.files.endpoint_section import EndpointSection
from stream.wire.greeting import resolve_host
from stream.wire.pva import private_search
from stream.wire.reserve import reserved
from stream.wire.sockets import read_keys

STORE_MODULES = ("bluesky_tiled_plugins", "databroker", "event_model", "tiled")
_COUNT_BYTES = 4  # of a pixel of a detector that does not say


def addresses(known: Known) -> Findings:
    """Yields which of the addresses can be used from here; nobody is asked whether he is there."""
    config = known.config
    with ExitStack() as held:  # so that the same address twice is noticed
        for name, section in _endpoints(config):
            yield from caught(name, partial(_endpoint, name, section, held))
        if config.viewer.enabled:
            yield from caught("viewer", partial(_viewer, config.viewer, held))
        if config.policy.enabled:
            policy_aims(config)


def _endpoints(config: Config) -> Iterator[tuple[str, EndpointSection]]:
    if config.detector.address:
        yield "detector", config.detector
    if config.positions.has_address:
        yield "positions", config.positions
    yield "live", config.live
    remote = config.remote
    remote = remote.changed(insecure=True) if remote.makes_keys else remote  # which may still be to be made
    if remote.enabled and config.network.weights:
        yield "remote", remote
    if remote.lends_refinement:
        yield "remote", remote.for_refinement()
    if config.policy.enabled:
        yield "policy", config.policy


def _endpoint(name: str, section: EndpointSection, held: ExitStack) -> Findings:
    endpoint = section.endpoint()
    if endpoint.key and endpoint.key.stat().st_mode & 0o077:
        detail = (
            f"other users of this computer can read the secret key {endpoint.key}: chmod 600 makes it yours"
        )
        yield Finding(name, "WARNING", detail)
    if endpoint.bind:
        held.enter_context(reserved(endpoint))
        yield Finding(name, "OK", f"{endpoint.address} can be bound")
    else:
        read_keys(endpoint)
        resolve_host(endpoint.address)


def _viewer(section: ViewerConfig, held: ExitStack) -> Findings:
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    server = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((section.host, section.port))
        server.listen(1)
    except OSError as error:
        raise ValueError(
            f"cannot serve the page at {section.host}:{section.port}: {error.strerror}; another run may have "
            "its page there: choose another viewer.port (0 takes a free one), or viewer.enabled: false"
        ) from error
    section.read_token()
    section.read_token("steering_token")
    yield Finding("viewer", "OK", f"{section.host}:{section.port} can be bound")
    if not section.is_private:
        may = "see the page and steer" if section.may_steer else "see the page"
        here = section.host in LOOPBACK
        reached = ", ".join(section.hosts) if here else f"{section.host}:{section.port}"
        yield Finding("viewer", "WARNING", f"everybody who reaches {reached} may {may}")


def save_folder(known: Known) -> Findings:
    """Yields whether results can be written, and how many frames there is room for."""
    config = known.config
    check_writable(config.save, "another `save` (--save)")
    if (config.save / LOCK).exists():
        os.close(claim(config.save))
    free, frame_bytes = shutil.disk_usage(_existing(config.save)).free, _frame_bytes(config)
    n_frames = int(free // frame_bytes)
    room = f"room for {roughly(n_frames)} frames of {readable(frame_bytes, 'B')}"
    yield Finding("save", "OK", f"{config.save}, {readable(free, 'B')} free, {room}")
    n_positions = 0
    with suppress(ValueError, OSError):  # a file that cannot be read is a finding of its own
        n_positions = 0 if known.positions_m is None else len(known.positions_m)
    if n_positions > n_frames:
        raise ValueError(
            f"{n_positions} frames with their patches need {readable(n_positions * frame_bytes, 'B')}, "
            f"{readable(free, 'B')} are free in {config.save}: make room or use another --save"
        )


def _frame_bytes(config: Config) -> float:
    geometry, detector = config.geometry, config.detector
    shape = detector.frame_shape or (geometry.n_pixels * geometry.binning,) * 2
    n_bytes = float(np.prod(shape)) * np.dtype(detector.frame_dtype or f"u{_COUNT_BYTES}").itemsize
    # patch complex64 and sigma float16
    return n_bytes + (geometry.n_pixels**2 * 10.0 if config.network.weights else 0.0)


def store(known: Known) -> Findings:
    """Yields whether finished scans can be registered."""
    config = known.config
    if not config.store.enabled:
        return
    for module in STORE_MODULES:
        require(module)
    folder = config.store.path or config.save / "store"
    check_writable(folder, "another store.path")
    yield Finding("store", "OK", str(folder))


def sources(known: Known) -> Findings:
    """Yields whether what is no address can be listened to: PVs, files of a detector."""
    detector, positions = known.config.detector, known.config.positions
    if detector.path is not None:
        n_series = len(series_at(detector.path))
        there = f"{n_series} are there" if n_series else "none is there yet"
        yield Finding("detector", "OK", f"series in {detector.path} are waited for, {there}")
    for what, section, names in (
        ("detector", detector, (detector.pv,) if detector.pv else ()),
        ("positions", positions, positions.pvs),
    ):
        if names:
            yield from caught(what, partial(_searched, what, names, insecure=section.insecure))


def _searched(what: str, names: tuple[str, ...], *, insecure: bool) -> Findings:
    require("p4p")
    if not insecure:
        private_search(os.environ)
    yield Finding(what, "OK", f"PV {', '.join(names)} is waited for")


def pvs(known: Known) -> Findings:
    """Yields whether the live image can be served as PVs, and who may see it."""
    section = known.config.pva
    if not section.enabled:
        return
    require("p4p")
    yield Finding("pvs", "OK", f"{section.prefix}Phase and its neighbours are served at {section.host}")
    if section.host not in LOOPBACK:
        detail = f"everybody who reaches {section.host} may see the image: PVs have no password"
        yield Finding("pvs", "WARNING", detail)


def cluster(known: Known) -> Findings:
    """Yields whether workers could be placed on the cluster that is named; it is not asked."""
    if on := known.config.remote.cluster:
        require("ray")
        yield Finding("cluster", "OK", f"{on}, with keys made for the run")


def require(module: str) -> None:
    """Raises ImportError, saying what to install, if there is no such module."""
    if find_spec(module) is None:
        raise ImportError(f"{module} is missing: {missing_extra(ImportError(name=module)) or 'install it'}")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def check_writable(folder: Path, instead: str) -> None:
    """Raises ValueError, naming what to use `instead`, if nothing can be written to `folder`."""
    existing = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"{existing} cannot be written to: {error.strerror}; use {instead}") from error
