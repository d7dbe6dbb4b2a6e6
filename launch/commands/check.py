"""The `check` command: try every address and file of a configuration before the beam is on."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from launch.config.config import Config
from launch.config.probe import known_probe
from launch.run.warnings import doubts
from operators.engine.backends import get_backend
from stream.stages.config import EndpointSection
from stream.wire.sockets import EndpointError, Kind, Socket

TIMEOUT_S = 2.0


class Finding(NamedTuple):
    """What became of one thing that was tried; a warning keeps no run from beginning."""

    what: str
    result: Literal["OK", "WARNING", "TIMEOUT", "ERROR"]
    detail: str


def check(config: Config, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """Returns what became of every address, folder and device in `config`."""
    return list(_findings(config, timeout_s))


def _findings(config: Config, timeout_s: float) -> Iterator[Finding]:
    detector, positions, viewer = config.detector, config.positions, config.viewer
    yield _try(f"detector {detector.address}", lambda: _reach(detector, detector.pattern, timeout_s))
    if positions.source == "documents":
        yield _try(f"positions {positions.address}", lambda: _reach(positions, "SUB", timeout_s))
    yield _try(f"live {config.live.address}", lambda: _reach(config.live, "ROUTER", timeout_s))
    if viewer.enabled:
        yield _try(f"viewer {viewer.host}:{viewer.port}", lambda: _listen(viewer.host, viewer.port))
    yield _try(f"probe {config.probe.source}", lambda: _probe(config))
    if weights := config.network.weights:
        network = _try(f"network {weights.name}", lambda: _network(config, weights))
        yield network
        if network.result == "OK":
            yield from (Finding(network.what, "WARNING", doubt) for doubt in doubts(config))
    yield _try(f"refinement {config.refinement.device}", lambda: _device(config))
    yield _try(f"save {config.save}", lambda: _room(config.save))


def _try(what: str, action: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "OK", action())
    except TimeoutError as error:
        return Finding(what, "TIMEOUT", str(error))
    except (ValueError, OSError) as error:
        return Finding(what, "ERROR", str(error))


def _reach(section: EndpointSection, kind: Kind, timeout_s: float) -> str:
    endpoint = section.endpoint()
    with Socket(kind, endpoint):  # also reads the keys
        if endpoint.bind:
            return "can be bound"
    if match := re.fullmatch(r"tcp://\[?(.+?)\]?:(\d+)", endpoint.address):
        return _connect(match[1], int(match[2]), timeout_s)
    path = Path(endpoint.address.removeprefix("ipc://"))
    if not path.is_socket():
        raise EndpointError(f"nobody has bound {endpoint.address}")
    return "somebody has bound it"


def _connect(host: str, port: int, timeout_s: float) -> str:
    try:
        with socket.create_connection((host, port), timeout_s):
            return "answers"
    except TimeoutError:
        raise TimeoutError(f"no answer in {timeout_s:g} s: is {host} switched on and reachable?") from None
    except ConnectionRefusedError:
        raise EndpointError(f"{host} refuses port {port}: is the detector's stream enabled?") from None


def _listen(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
    return "can be bound"


def _probe(config: Config) -> str:
    n_pixels = config.geometry.n_pixels
    probe = known_probe(config.probe, n_pixels)
    if probe is None:
        return "found from the first frames"
    if probe.shape[1:] != (n_pixels, n_pixels):
        raise ValueError(f"the probe has shape {probe.shape}, patterns have {n_pixels} x {n_pixels} pixels")
    return f"{len(probe)} mode{'s' if len(probe) > 1 else ''} of {n_pixels} x {n_pixels} pixels"


def _network(config: Config, weights: Path) -> str:
    from stream.files.weights import load_network
    from stream.stages.predictors import try_out

    section, probe = config.network, known_probe(config.probe, config.geometry.n_pixels)
    network, card = load_network(weights)
    if probe is None:
        return f"version {card.model_id}"
    found = try_out(network, probe, section.batch_size, section.device, section.threads)
    return f"version {card.model_id}, {found}"


def _device(config: Config) -> str:
    return f"updates by {get_backend(config.refinement.device).name}"


def _room(save: Path) -> str:
    folder = next(path for path in (save, *save.parents) if path.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    status = os.statvfs(folder)
    return f"{status.f_bavail * status.f_frsize / 1e9:.1f} GB free"
