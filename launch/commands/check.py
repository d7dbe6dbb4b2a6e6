"""The `check` command: everything that `run` looks at before it begins, and what others say to it.

Of a detector that publishes (SUB) a message is received, of a PV what it holds. One that pushes (PULL) gives
each of its frames to one reader, so what is taken here would be missing in a scan: it is asked what it is,
and a message is taken only with `receives`.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from textwrap import wrap
from typing import Any

import numpy as np

from launch.config.config import Config
from launch.config.probe import Known
from launch.pva.service import STATUS
from launch.run.findings import Finding, Findings, caught
from launch.run.network_choice import for_the_rate
from launch.run.readiness import readiness
from stream.detector.config import DetectorConfig
from stream.detector.dialects import DIALECTS, formats_of
from stream.detector.files.feed import open_series
from stream.detector.files.series import start_of
from stream.detector.files.watch import series_at
from stream.detector.protocol import (
    DetectorMessage,
    DetectorMessageError,
    Dialect,
    ImageMessage,
    StartMessage,
)
from stream.detector.pva.ntndarray import check_is_grey, decode_array
from stream.documents.codec import DocumentError
from stream.documents.sources.choice import source_of
from stream.documents.sources.protocol import PolledSource, Said, WireSource
from stream.files.endpoint_section import EndpointSection
from stream.stages.ingest.told import numbers_in
from stream.stages.inputs import Optics
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short
from stream.wire.greeting import ask_who, unlike_keys
from stream.wire.pva import Monitor, PvaError
from stream.wire.sockets import Kind, Socket

TIMEOUT_S = 2.0
MOMENT_S = 0.5  # for a PV of this computer to answer
LOOK_S = 0.02  # between two looks at a PV or a file
SETTLE_S = 1.0  # for which a file is looked at that has no frame to be read
SENDERS = {"PULL": ("PUSH",), "SUB": ("PUB", "XPUB")}
_SAME = 0.01  # share by which what the detector says may differ from the configuration
_RESULT_COLUMNS, _NAME_COLUMNS = 9, 19


def check(config: Config, timeout_s: float = TIMEOUT_S, *, receives: bool = False) -> Iterator[Finding]:
    """Yields what became of everything in `config`, as it is tried.

    Parameters
    ----------
    config : Config
    timeout_s : float
        To wait for an answer or a message of each address.
    receives : bool
        Whether a message is also taken from a detector that pushes; a scan that runs would lack it.
    """
    known, failed = Known(config), set()
    for finding in readiness(known, is_patient=True):
        failed |= {finding.what} if finding.is_failure else set()
        yield finding
    if config.network.weights and not failed & {"network", "probe", "frames"}:
        yield from caught("network", partial(_speed, known))
    yield from caught("detector", partial(_detector, config, timeout_s, receives=receives))
    if config.pva.enabled:
        yield from caught("pvs", partial(_others_pvs, config))
    if config.positions.source == "pva" and "positions" not in failed:
        yield from caught("positions", partial(_position_pvs, config, timeout_s))
    elif "positions" not in failed:
        yield from caught("positions", partial(_positions, config, timeout_s))


def table(finding: Finding, width: int) -> str:
    """Returns the lines that show a finding, in columns; no path is broken."""
    indent = " " * (_RESULT_COLUMNS + _NAME_COLUMNS)
    head = f"{finding.result:<{_RESULT_COLUMNS}}{finding.what:<{_NAME_COLUMNS}}"
    fold = partial(wrap, width=max(width - len(indent), 30), break_long_words=False, break_on_hyphens=False)
    lines = [line for text in finding.detail.splitlines() for line in fold(text)]
    return f"\n{indent}".join([head + (lines[0] if lines else ""), *lines[1:]])


def _speed(known: Known) -> Findings:
    from stream.files.weights import load_network
    from stream.stages.inference.predictors import try_out

    section, probe = known.config.network, known.probe
    if section.weights is None or probe is None:
        return
    network, _ = load_network(section.weights)
    tried = try_out(network, probe, section.batch_size, section.device, section.threads)
    shared = f"; {section.workers} workers share the frames" if section.workers > 1 else ""
    yield Finding("network", "OK", f"{tried}{shared}")
    _, choice = for_the_rate(known.config)
    if choice:
        yield Finding("network", "OK", f"a run takes {choice}")


def _detector(config: Config, timeout_s: float, *, receives: bool) -> Findings:
    section = config.detector
    if section.pv:
        yield from _pv(config, timeout_s)
        return
    if section.path is not None:
        yield from _newest_file(config)
        return
    yield from _who("detector", section, section.pattern, timeout_s)
    pushes = section.pattern == "PULL"
    if pushes and not receives:
        yield Finding(
            "detector",
            "WARNING",
            "nothing was received: it pushes, so a scan would lack what is taken here; `--receive` takes one",
        )
        return
    lacking = "; no other reader gets it" if pushes else ""
    others = ""
    dialect = DIALECTS[section.format]()
    for parts in received(section, section.pattern, timeout_s):
        message = _detector_message(parts, dialect, section)
        if isinstance(message, StartMessage):
            yield Finding("detector", "OK", f"the start of series {message.key} came{lacking}")
            yield from _announced(message, config)
        elif isinstance(message, ImageMessage):
            yield from _frame(message, config, lacking)
        if pushes or isinstance(message, ImageMessage):
            return
        others = "frame, other messages did"
    yield Finding(
        "detector",
        "WARNING",
        f"no {others or 'message'} came from {section.address} in {timeout_s:g} s: is the detector armed?",
    )


def _held(name: str, timeout_s: float, *, insecure: bool) -> Any:
    """Return what a PV holds."""
    with Monitor(name, 1, insecure=insecure) as monitor:
        for _ in _looks(timeout_s):
            if (update := monitor.receive()) is not None:
                return update[0]
    raise TimeoutError(f"no PV {name} has answered in {timeout_s:g} s")


def _others_pvs(config: Config) -> Findings:
    """Yield whether PVs of the same names are served already, which viewers could not tell apart."""
    name = f"{config.pva.prefix}{STATUS}"
    try:
        _held(name, MOMENT_S, insecure=config.pva.insecure)
    except (TimeoutError, PvaError):  # nobody, or nobody who may be asked
        return
    detail = f"there is a PV {name} already: another run has the prefix {config.pva.prefix}, choose your own"
    yield Finding("pvs", "WARNING", detail)


def _position_pvs(config: Config, timeout_s: float) -> Findings:
    """Yield whether the PVs of positions are there."""
    section = config.positions
    for name in section.pvs:
        kind = _held(name, timeout_s, insecure=section.insecure).getID()
        yield Finding("positions", "OK", f"PV {name} is there, {kind}")


def _pv(config: Config, timeout_s: float) -> Findings:
    """Yield what a PV holds; listening to it takes nothing from a scan."""
    section = config.detector
    value = _held(section.pv, timeout_s, insecure=section.insecure)
    try:
        exposure = decode_array(value)
        check_is_grey(value)
        frame = None if exposure is None else exposure.frame.decode()
    except DetectorMessageError as error:
        raise ValueError(f"PV {section.pv}: {error}") from error
    if exposure is None or frame is None:
        yield Finding("detector", "OK", f"PV {section.pv} is there and has had no image yet")
        return
    rows, columns = frame.shape
    yield Finding(
        "detector",
        "OK",
        f"PV {section.pv} holds image {exposure.number}: {rows} x {columns} pixels, {exposure.frame.dtype}, "
        f"at most {frame.max()} counts",
    )
    yield from _usable(exposure.frame.shape, exposure.frame.dtype, config)


def _newest_file(config: Config) -> Findings:
    """Yield what is in the newest series that a detector has written."""
    place = config.detector.path
    found = [] if place is None else series_at(place)
    if not found:
        yield Finding("detector", "WARNING", f"nothing is in {place} yet: its frames cannot be looked at")
        return
    series = open_series(found[-1], config.detector)
    try:
        for _ in _looks(SETTLE_S):  # at a file of which nothing tells whether it is whole
            if frames := series.read(1, 1):
                break
        else:
            detail = series.waits_for or f"{found[-1]} has no frame yet"
            yield Finding("detector", "WARNING", detail)
            return
        encoded, told = frames[0].frame, series.describe()
        frame = encoded.decode()
    except DetectorMessageError as error:
        raise ValueError(str(error)) from error
    finally:
        series.close()
    rows, columns = frame.shape
    kind = f"{rows} x {columns} pixels, {encoded.dtype}, at most {frame.max()} counts"
    yield Finding("detector", "OK", f"{found[-1]} begins with a frame of {kind}")
    yield from _announced(start_of("", 0, found[-1], encoded, told), config)


def _positions(config: Config, timeout_s: float) -> Findings:
    section = config.positions
    if section.told:  # of which the check of the detector says whether they are there
        return
    source = source_of(section.changed(take_existing=True), config.save)
    if isinstance(source, WireSource):
        yield from _who("positions", section, source.pattern, timeout_s)
        where = section.address
        when = "documents come while a plan runs" if section.source == "documents" else "is a scan running?"
        heard: Iterator[Sequence[Said]] = map(source.decode, received(section, source.pattern, timeout_s))
    elif isinstance(source, PolledSource):
        where, when, heard = section.where, "", _looked_for(source, timeout_s)
    else:
        return
    try:
        for said in heard:
            if said:
                names = ", ".join(dict.fromkeys(name for name, _ in said))
                yield Finding("positions", "OK", f"a document came: {names}")
                return
    except DocumentError as error:
        raise ValueError(f"what comes from {where} is not for source {section.source!r}: {error}") from error
    finally:
        source.close()
    missing = source.waits_for if isinstance(source, PolledSource) else ""
    detail = f"nothing came from {where} in {timeout_s:g} s: {missing or when}"
    yield Finding("positions", "WARNING", detail)


def _looked_for(source: PolledSource, timeout_s: float) -> Iterator[Sequence[Said]]:
    """Yield what comes of a source within the time."""
    for _ in _looks(timeout_s):
        yield source.receive()


def _looks(timeout_s: float) -> Iterator[None]:
    """Yield once, and again and again until the time is over."""
    ends_at = time.monotonic() + timeout_s
    yield
    while time.monotonic() < ends_at:
        time.sleep(LOOK_S)
        yield


def _who(name: str, section: EndpointSection, kind: Kind, timeout_s: float) -> Findings:
    """Yield who is at an address that the other side binds."""
    if section.bind:
        return
    peer = ask_who(section.address, timeout_s)
    if trouble := unlike_keys(peer, section.endpoint()):
        raise ValueError(trouble)
    if peer.kind and peer.kind not in SENDERS[kind]:
        patterns = [ours for ours, theirs in SENDERS.items() if peer.kind in theirs]
        hint = f"; set {name}.pattern: {patterns[0]}" if patterns and name == "detector" else ""
        raise ValueError(
            f"a {peer.kind} socket answers at {section.address}, a {kind} hears {SENDERS[kind][0]} only{hint}"
        )
    yield Finding(name, "OK", f"a {peer.kind or peer.mechanism} socket answers at {section.address}")


def received(section: EndpointSection, kind: Kind, timeout_s: float) -> Iterator[list[Buffer]]:
    """Yields what comes within the time; one at a time is asked for, the rest stays with the sender."""
    ends_at = time.monotonic() + timeout_s
    with Socket(kind, section.endpoint(), queue=1) as inlet:
        while (parts := inlet.receive(max(ends_at - time.monotonic(), 0.0))) is not None:
            yield parts


def _detector_message(
    parts: list[Buffer], dialect: Dialect, section: DetectorConfig
) -> DetectorMessage | None:
    try:
        return dialect.decode(parts)
    except DetectorMessageError as error:
        others = " or ".join(formats_of(parts))
        hint = f"; it is {others}: set detector.format" if others else ""
        raise ValueError(
            f"what comes from {section.address} is not {section.format}: {error}{hint}"
        ) from error


def _announced(start: StartMessage, config: Config) -> Findings:
    """Yield in what the detector contradicts the configuration."""
    geometry = config.geometry
    if start.frame_shape is not None:
        yield from _usable(start.frame_shape, start.frame_dtype, config)
    pairs = {
        "energy_ev": (start.incident_energy, geometry.energy_ev),
        "detector_pixel_m": (start.pixel_size_x, geometry.detector_pixel_m),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs and abs(theirs - ours) > _SAME * ours:
            yield Finding(
                "detector", "WARNING", f"it says {name} is {theirs:.6g}, geometry.{name} is {ours:.6g}"
            )


def _frame(message: ImageMessage, config: Config, lacking: str) -> Findings:
    try:
        encoded = message.frame(config.detector.channel)
        frame = encoded.decode()
    except DetectorMessageError as error:
        raise ValueError(f"frame {message.image_id} of series {message.key}: {error}") from error
    rows, columns = frame.shape
    yield Finding(
        "detector",
        "OK",
        f"frame {message.image_id} of series {message.key} came: {rows} x {columns} pixels, {encoded.dtype}, "
        f"{encoded.compression or 'not compressed'}, at most {frame.max()} counts{lacking}",
    )
    if config.positions.told and numbers_in(message.user_data, config.positions.told) is None:
        wanted, came = " and ".join(config.positions.told), in_short(message.user_data)
        yield Finding("positions", "WARNING", f"its user data is {came}: wanted numbers {wanted}")
    yield from _usable(encoded.shape, encoded.dtype, config)


def _usable(shape: tuple[int, int], dtype: str, config: Config) -> Findings:
    """Yield whether frames of this kind give patterns."""
    detector = config.detector
    if detector.frame_shape and shape != detector.frame_shape:
        raise ValueError(f"frames have shape {shape}, detector.frame_shape is {detector.frame_shape}")
    if detector.frame_dtype and dtype and np.dtype(dtype) != np.dtype(detector.frame_dtype):
        raise ValueError(f"frames have dtype {dtype}, detector.frame_dtype is {detector.frame_dtype}")
    Optics(config.geometry).preprocess_of(shape)
    yield Finding("frames", "OK", f"{shape[0]} x {shape[1]} pixels give the patterns")
