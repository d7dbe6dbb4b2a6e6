"""The `replay` command: a recorded scan leaves again as a detector sends it, positions as bluesky does."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from launch.extras import missing_extra
from launch.offline.recorded import ColumnFrames, RecordedScan
from launch.signals import Interrupted
from operators.arrays import Positions
from operators.geometry import METRES_PER_UNIT
from stream.detector.dialects import COMPRESSIONS, ENCODERS, NUMBERED
from stream.detector.files.writers import FILE_SENDERS
from stream.detector.pva.sender import PvaSender
from stream.detector.simulator import (
    QUEUE,
    Compression,
    Faults,
    Replay,
    ReplayConfig,
    Sender,
    SocketSender,
    new_series_uid,
)
from stream.documents.outlets import FIELDS, OUTLETS, Outlet
from stream.wire.pva import ANYWHERE, LOOPBACK, PvServer
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)

LISTENER_TIMEOUT_S = 5.0  # the position stage is ready about when the subscriber is
MOMENT_S = 1.0  # after which whoever waits for it is told
PAGE_S = 0.1  # positions are published as often as a beamline does
NOBODY = 1  # exit status
Publish = Callable[[str, dict[str, Any]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How a scan is played.

    Attributes
    ----------
    format : str
        What the detector speaks, one of `SENDERS`.
    endpoint : Endpoint
        Where frames go.
    pattern : {"PUSH", "PUB"}
    rate_hz : float
        Frames per second; 0 for as fast as they are taken.
    n_frames : int or None
        Only the first so many.
    positions : Endpoint or None
        Where positions go: the position stage's own address, that of the PandA or relay that is played, or as
        its address the path of a file; None sends none.
    positions_as : str
        What sends them, one of `stream.documents.outlets.OUTLETS`.
    unit : {"m", "mm", "um", "nm"}
        Of the positions in the documents; the pipeline is configured for one.
    timeout_s : float
        Longest time to wait until somebody takes frames.
    compression : {"bslz4", "bszstd", "lz4", ""}
        Of the frames.
    pv : str or None
        Whose values the frames are, for "pva".
    folder : Path or None
        Where a detector that writes files writes them.
    """

    format: str
    endpoint: Endpoint
    pattern: Literal["PUSH", "PUB"]
    rate_hz: float
    n_frames: int | None
    positions: Endpoint | None
    unit: str
    timeout_s: float
    compression: Compression = "bslz4"
    positions_as: str = "documents"
    pv: str | None = None
    folder: Path | None = None


def _by_socket(options: ReplayOptions) -> Sender:
    if options.pv is not None:
        raise ValueError(f"--pv {options.pv!r} is for --as pva, not for {options.format}")
    known = COMPRESSIONS[options.format]
    if options.compression not in known:
        words = ", ".join(name or "none" for name in known)
        raise ValueError(f"--compression {options.compression}: {options.format} has one of {words}")
    return SocketSender(options.endpoint, options.pattern, QUEUE, ENCODERS[options.format])


def _by_pv(options: ReplayOptions) -> Sender:
    if not options.pv:
        raise ValueError("--as pva needs --pv NAME, the name of the PV")
    if not options.rate_hz:
        raise ValueError("--rate 0 is for what waits: a PV does not, and its reader would miss frames")
    insecure = options.endpoint.insecure
    try:
        server = PvServer(ANYWHERE if insecure else LOOPBACK, insecure=insecure)
    except ImportError as error:
        raise ImportError(f"a PV {missing_extra(error) or error}") from error
    return PvaSender(server, options.pv, options.compression)


def _into(sender: Callable[[Path], Sender], options: ReplayOptions) -> Sender:
    if options.folder is None:
        raise ValueError(f"--as {options.format} writes files: say where, --to FOLDER")
    return sender(options.folder)


SENDERS: dict[str, Callable[[ReplayOptions], Sender]] = {
    **dict.fromkeys(ENCODERS, _by_socket),
    "pva": _by_pv,
    **{name: partial(_into, sender) for name, sender in FILE_SENDERS.items()},
}
"""What carries frames away, by the format of `ReplayOptions`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How far a scan was played.

    Attributes
    ----------
    n_sent, n_frames : int
        Frames that left, and that should have.
    status : int
        Exit status: 0 if all left, 1 if nobody took them, that of the signal that ended it.
    reason : str
        Why not all left.
    """

    n_sent: int
    n_frames: int
    status: int = 0
    reason: str = ""


class PositionDocuments:
    """The documents of one run that lets positions out as their frames leave.

    Parameters
    ----------
    publish : callable
        Gets the name and content of each document.
    numbers : (frame,) int64
    positions_m : (frame, 2) float64, metres
        Frames without a finite position are left out.
    series : str
        The detector's name of the series.
    page_frames : int
        Frames of one event page.
    unit : {"m", "mm", "um", "nm"}
    """

    def __init__(
        self,
        publish: Publish,
        numbers: NDArray[np.int64],
        positions_m: Positions,
        series: str,
        page_frames: int,
        unit: str,
    ) -> None:
        try:
            from event_model import compose_run
        except ImportError as error:
            raise ImportError(
                f"publishing positions {missing_extra(error) or error}, "
                "or leave positions out with --no-positions"
            ) from error

        self._publish, self._page_frames = publish, page_frames
        is_known = np.isfinite(positions_m).all(axis=1)
        self._numbers, self._positions = numbers[is_known], positions_m[is_known] / METRES_PER_UNIT[unit]
        self._n_published = 0
        self._run = compose_run(metadata={"plan_name": "replay", "detector_series_id": series})
        key = {"source": "replay", "dtype": "number", "shape": [], "units": unit}
        self._descriptor = self._run.compose_descriptor(
            name="primary",
            data_keys={name: dict(key) for name in FIELDS},
            hints={"stage": {"fields": list(FIELDS)}},
            object_keys={"stage": list(FIELDS)},
        )

    def begin(self) -> None:
        """Publishes that the run has begun and what its events hold."""
        self._publish("start", dict(self._run.start_doc))
        self._publish("descriptor", dict(self._descriptor.descriptor_doc))

    def reach(self, number: int) -> None:
        """Publishes a page when enough frames up to `number` have left."""
        n_left = int(np.searchsorted(self._numbers, number, side="right"))
        if n_left - self._n_published >= self._page_frames:
            self._page(n_left)

    def end(self) -> None:
        """Publishes the rest and that the run is over."""
        self._page(len(self._numbers))
        self._publish("stop", dict(self._run.compose_stop()))

    def _page(self, stop: int) -> None:
        rows = slice(self._n_published, stop)
        if rows.start == rows.stop:
            return
        self._n_published = stop
        stamps = [time.time()] * (rows.stop - rows.start)
        page = self._descriptor.compose_event_page(
            data=dict(zip(FIELDS, self._positions[rows].T.tolist(), strict=True)),
            timestamps=dict.fromkeys(FIELDS, stamps),
            seq_num=(self._numbers[rows] + 1).tolist(),
            time=stamps,
            validate=False,
        )
        self._publish("event_page", dict(page))


def replay(scan: RecordedScan, options: ReplayOptions, publish: Publish | None = None) -> Played:
    """Plays `scan` and returns how far it came.

    Positions go along if somebody listens for them; a pipeline that has them from a file does not.

    Parameters
    ----------
    scan : RecordedScan
    options : ReplayOptions
    publish : callable, optional
        Where documents go, instead of `options.positions`.

    Raises
    ------
    ValueError
        If there are no frames, or they are not counts.
    """
    numbers = scan.frame_numbers[: options.n_frames]
    if not len(numbers):
        raise ValueError(f"{scan.called} has no frames: there is nothing to replay")
    status, reason = 0, ""
    with (
        Replay(SENDERS[options.format](options), options.timeout_s) as detector,
        _outlet(options) as publisher,
    ):
        try:
            detector.wait_for_receiver()
            if publish is None and publisher is not None and options.positions is not None:
                publish = publisher if _is_heard(publisher, options.positions.address) else None
            _play(scan, options, detector, publish)
        except TimeoutError as error:
            status, reason = NOBODY, str(error)
        except Interrupted as end:
            status, reason = end.status, "interrupted"
        return Played(n_sent=detector.n_sent, n_frames=len(numbers), status=status, reason=reason)


def _is_heard(publisher: Outlet, address: str) -> bool:
    if publisher.is_heard(MOMENT_S):
        return True
    log.warning("nobody takes positions at %s yet: waiting, for %g s at most", address, LISTENER_TIMEOUT_S)
    if publisher.is_heard(LISTENER_TIMEOUT_S - MOMENT_S):
        return True
    log.warning("nobody takes positions at %s: only frames are sent", address)
    return False


def _play(scan: RecordedScan, options: ReplayOptions, detector: Replay, publish: Publish | None) -> None:
    numbers = scan.frame_numbers[: options.n_frames]
    is_numbered = isinstance(scan.frames, ColumnFrames)  # 0007-star, and gets another number
    series = new_series_uid(scan.name.partition("-")[2] if is_numbered else scan.name)
    config = _config(scan, numbers, series, options)
    series = str(config.series_id) if options.format in NUMBERED else series
    if publish is None:
        detector.play(_frames(scan, numbers), config, _length(numbers))
        return
    page_frames = max(1, round(options.rate_hz * PAGE_S))
    positions_m = scan.positions_m[: len(numbers)]
    documents = PositionDocuments(publish, numbers, positions_m, series, page_frames, options.unit)
    documents.begin()
    detector.play(_frames(scan, numbers, documents.reach), config, _length(numbers))
    documents.end()


@contextmanager
def _outlet(options: ReplayOptions) -> Iterator[Outlet | None]:
    if options.positions is None:
        yield None
        return
    with closing(OUTLETS[options.positions_as].open(options.positions, options.unit)) as outlet:
        yield outlet


def _config(
    scan: RecordedScan, numbers: NDArray[np.int64], series: str, options: ReplayOptions
) -> ReplayConfig:
    lost = frozenset(range(_length(numbers))) - frozenset(numbers.tolist())
    config = ReplayConfig(
        series_id=int(time.time()) if options.format in NUMBERED else 1,  # no two are to be named alike
        series_uid=series,
        rate_hz=options.rate_hz,
        compression=options.compression,
        faults=Faults(drop=lost),
    )
    if scan.geometry is None:
        return config
    return replace(
        config,
        energy_ev=scan.geometry.energy_ev,
        detector_distance_m=scan.geometry.detector_distance_m,
        detector_pixel_m=scan.geometry.detector_pixel_m,
    )


def _length(numbers: NDArray[np.int64]) -> int:
    return int(numbers[-1]) + 1


def _frames(
    scan: RecordedScan, numbers: NDArray[np.int64], reach: Callable[[int], None] = lambda number: None
) -> Iterator[NDArray[Any]]:
    """Yield a frame per number from 0; one that was lost when it was recorded is blank, and dropped later."""
    blank = None
    index = 0
    for number in range(_length(numbers)):
        if number == numbers[index]:
            blank = as_counts(np.asarray(scan.frames[index]), f"frame {number} of {scan.called}")
            index += 1
        elif blank is None:
            blank = as_counts(np.asarray(scan.frames[0]), scan.called)
        reach(number)
        yield blank


def as_counts(frame: NDArray[Any], name: str) -> NDArray[Any]:
    """Returns the frame in the unsigned integers that a detector sends.

    Raises
    ------
    ValueError
        If it holds anything else than counts.
    """
    if frame.dtype.kind == "u":
        return frame
    counts = frame.astype(np.uint32)
    if not np.array_equal(counts, frame):
        raise ValueError(f"{name} holds {frame.dtype} values that are no counts: a detector cannot send them")
    return counts
