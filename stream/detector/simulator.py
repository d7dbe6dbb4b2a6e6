"""A detector to try things with: frames from anywhere, at the pace of a detector and in any of its formats.

It loses nothing: where a real detector would drop frames, it waits.
"""

import itertools
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from stream.detector.dectris import encode_frame
from stream.detector.dialects import ENCODERS
from stream.detector.protocol import DetectorMessage, EncodedFrame, EndMessage, ImageMessage, StartMessage
from stream.wire.sockets import Endpoint, Socket

log = logging.getLogger(__name__)

Frame = NDArray[Any] | EncodedFrame
Compression = Literal["bslz4", "bszstd", "lz4", ""]

TIME_BASE_HZ = 50_000_000  # of the detector's clock
SEND_TIMEOUT_S = 0.1  # how long a full queue is waited for before somebody may have said stop
MOMENT_S = 2.0  # after which whoever waits for a receiver is told why nothing happens
FLUSH_S = 5.0
QUEUE = 1000  # messages that may wait on either side


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong on the way, by frame number.

    Attributes
    ----------
    drop, duplicate : frozenset of int
        Frames that are not sent, or sent twice.
    order : tuple of int
        The order in which frames leave; all of them are then held in memory.
    without_start, without_end : bool
        Whether the first or last message is missing.
    announce : int or None
        Number of images announced, instead of the true one.
    stop_after : int or None
        The detector dies after so many image messages: no end either.
    """

    drop: frozenset[int] = frozenset()
    duplicate: frozenset[int] = frozenset()
    order: tuple[int, ...] | None = None
    without_start: bool = False
    without_end: bool = False
    announce: int | None = None
    stop_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """One series of a detector.

    Attributes
    ----------
    series_id : int
    series_uid : str
        Unique id; "" for a detector that has none.
    rate_hz : float
        Frames per second; 0 for as fast as they are taken.
    compression : {"bslz4", "bszstd", "lz4", ""}
    channel : str
        Name of the one channel.
    energy_ev, detector_distance_m, detector_pixel_m : float or None
        Said in the start message.
    faults : Faults
    """

    series_id: int = 1
    series_uid: str = ""
    rate_hz: float = 0.0
    compression: Compression = "bslz4"
    channel: str = "threshold_1"
    energy_ev: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_m: float | None = None
    faults: Faults = Faults()


def new_series_uid(name: str, now_s: float | None = None) -> str:
    """Return the name of a series, with the time in it: a detector never names two alike.

    A scan of the same name may lie in the folder already, and its frames would not be taken twice. A time in
    the name of a series that is sent again is replaced. `now_s` is Unix time, now unless given.
    """
    name = re.sub(r"(-\d{8}T\d{6})+$", "", name)
    return f"{name}-{time.strftime('%Y%m%dT%H%M%S', time.localtime(now_s))}"


class Sender(Protocol):
    """Carries the messages of a simulated detector away: by a socket, into files, as values of a PV."""

    @property
    def where(self) -> str:
        """Where they go, for people."""

    def prepare(self, message: DetectorMessage) -> Any:
        """Returns what `send` takes: all that can be done before the message is due.

        Raises
        ------
        ValueError
            If messages of this kind cannot be sent this way.
        """

    def is_heard(self, timeout_s: float) -> bool:
        """Says, within the time, whether somebody would take a message."""

    def send(self, prepared: Any, timeout_s: float) -> bool:
        """Says, within the time, whether a message was taken."""

    def close(self) -> None:
        """Gives what was sent time to leave."""


class SocketSender:
    """Sender: by ZeroMQ, as detectors do.

    Parameters
    ----------
    endpoint : Endpoint
        Where the socket binds (a detector does) or connects.
    pattern : {"PUSH", "PUB"}
        PUSH waits for a receiver and for room in its queue. PUB sends to whoever listens and drops what a
        slow listener's queue cannot hold.
    queue : int
        Messages that may wait on either side.
    encode : callable
        Of the dialect that is spoken.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        pattern: Literal["PUSH", "PUB"],
        queue: int,
        encode: Callable[[DetectorMessage], list[list[bytes]]],
    ) -> None:
        self.prepare = encode
        self._socket = Socket(pattern, endpoint, queue=queue, needs_peer=True)
        self.address = self._socket.address  # "" if it connects
        self.where = self._socket.address or endpoint.address

    def is_heard(self, timeout_s: float) -> bool:
        """Says whether somebody has connected; PUB never knows and says so at once."""
        return self._socket.has_room(timeout_s)

    def send(self, prepared: list[list[bytes]], timeout_s: float) -> bool:
        """Says whether all of some messages found room in the queue; those that did are taken out."""
        while prepared and self._socket.send(prepared[0], timeout_s):
            del prepared[0]
        return not prepared

    def close(self) -> None:
        """Gives what is queued a few seconds to leave."""
        self._socket.flush_and_close(FLUSH_S)


class Replay:
    """Plays series through one sender, as a detector does; a context manager.

    Parameters
    ----------
    sender : Sender
        Closed at the end.
    timeout_s : float
        Longest time to wait until a message is taken.
    clock, sleep : callable
        Monotonic seconds, and what waits.
    """

    def __init__(
        self,
        sender: Sender,
        timeout_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sender, self._timeout_s, self._clock, self._sleep = sender, timeout_s, clock, sleep
        self.n_sent = 0  # image messages, of all series

    def wait_for_receiver(self, is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Waits until somebody receives; says whether somebody does. PUB never knows and does not wait.

        Who waits longer than a moment is told so in the log.

        Raises
        ------
        TimeoutError
            If nobody has connected after the longest time to wait.
        """
        begin_s, is_told = self._clock(), False
        while not self._sender.is_heard(SEND_TIMEOUT_S):
            if is_stopped():
                return False
            waited_s = self._clock() - begin_s
            if waited_s >= self._timeout_s:
                raise TimeoutError(f"nobody has connected to {self._sender.where} in {self._timeout_s:g} s")
            if waited_s >= MOMENT_S and not is_told:
                limit = "" if math.isinf(self._timeout_s) else f", for {self._timeout_s:g} s at most"
                log.warning("nobody has connected to %s yet: waiting%s", self._sender.where, limit)
                is_told = True
        return True

    def play(
        self,
        frames: Iterable[Frame],
        config: ReplayConfig,
        n_frames: int | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """Sends one series; returns how many image messages left before the end or `is_stopped`.

        Parameters
        ----------
        frames : iterable of (row, column) integer arrays, or of frames that are encoded already
            Zero frequency at the centre; taken one at a time, when its turn comes.
        config : ReplayConfig
        n_frames : int or None
            How many are announced; the length of `frames` where it has one.
        is_stopped : callable
            Asked before every message and while the queue is full.

        Raises
        ------
        TimeoutError
            If a message was not taken for the longest time to wait; `n_sent` says how many images were.
        """
        if n_frames is None and isinstance(frames, Sequence | np.ndarray):
            n_frames = len(frames)
        begin_s = self._clock()
        n_before = self.n_sent
        for due_s, message in series_messages(frames, config, n_frames, lambda: self._clock() - begin_s):
            prepared = self._sender.prepare(message)
            # Due times count from the beginning: a late frame does not delay those after it.
            if (wait_s := begin_s + due_s - self._clock()) > 0:
                self._sleep(wait_s)
            if not self.send(prepared, is_stopped):
                break
            self.n_sent += isinstance(message, ImageMessage)
        return self.n_sent - n_before

    def send(self, prepared: Any, is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Sends what the sender prepared; says whether it went before `is_stopped`.

        Raises
        ------
        TimeoutError
            As of `play`.
        """
        begin_s = self._clock()
        while not is_stopped():
            if self._sender.send(prepared, SEND_TIMEOUT_S):
                return True
            if self._clock() - begin_s >= self._timeout_s:
                raise TimeoutError(
                    f"nobody has taken anything at {self._sender.where} for {self._timeout_s:g} s"
                )
        return False

    def close(self) -> None:
        """Gives what is queued a few seconds to leave."""
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class DetectorReplay(Replay):
    """Plays series through a socket; see `SocketSender` and `Replay`.

    Attributes
    ----------
    address : str
        Where the socket is bound, "" if it connects.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        pattern: Literal["PUSH", "PUB"] = "PUSH",
        queue: int = QUEUE,
        timeout_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        format: str = "dectris-v2",
    ) -> None:
        sender = SocketSender(endpoint, pattern, queue, ENCODERS[format])
        super().__init__(sender, timeout_s, clock, sleep)
        self.address = sender.address


def series_messages(
    frames: Iterable[Frame],
    config: ReplayConfig,
    n_frames: int | None = None,
    elapsed_s: Callable[[], float] = lambda: 0.0,
) -> Iterator[tuple[float, DetectorMessage]]:
    """Yields the messages of one series, faults included, and when each is due, seconds from the beginning.

    The exposure of frame k ends at (k + 1) / rate; without a rate, when the frame is asked for (`elapsed_s`).
    """
    faults = config.faults
    numbered = _in_order(frames, faults.order)
    first = next(numbered, None)
    if not faults.without_start:
        announced = n_frames if faults.announce is None else faults.announce
        yield 0.0, _start(config, first[1] if first else None, announced)
    frame_s = 1 / config.rate_hz if config.rate_hz else 0.0
    n_sent, due_s = 0, 0.0
    for place, (number, frame) in enumerate(itertools.chain([first] if first else [], numbered)):
        due_s = (place + 1) * frame_s
        exposed_s = (number + 1) * frame_s or elapsed_s()
        for _ in range((number not in faults.drop) * (2 if number in faults.duplicate else 1)):
            yield due_s, _image(config, number, frame, exposed_s - frame_s, exposed_s)
            n_sent += 1
            if n_sent == faults.stop_after:
                return
    if not faults.without_end:
        yield due_s, EndMessage(series_id=config.series_id, series_unique_id=config.series_uid or None)


def _in_order(frames: Iterable[Frame], order: tuple[int, ...] | None) -> Iterator[tuple[int, Frame]]:
    if order is None:
        return iter(enumerate(frames))
    held = list(frames)
    if sorted(order) != list(range(len(held))):
        raise ValueError(f"the order of {len(held)} frames must name each of 0 to {len(held) - 1} once")
    return ((number, held[number]) for number in order)


def _start(config: ReplayConfig, frame: Frame | None, n_frames: int | None) -> StartMessage:
    distance_m, pixel_m = config.detector_distance_m, config.detector_pixel_m
    frame_s = 1 / config.rate_hz if config.rate_hz else None
    return StartMessage(
        series_id=config.series_id,
        series_unique_id=config.series_uid or None,
        number_of_images=n_frames,
        image_size_y=None if frame is None else frame.shape[0],
        image_size_x=None if frame is None else frame.shape[1],
        image_dtype=None if frame is None else np.dtype(frame.dtype).name,
        channels=(config.channel,),
        arm_date=datetime.now(UTC),
        count_time=frame_s,
        frame_time=frame_s,
        detector_description="ptychostream replay",
        detector_translation=None if distance_m is None else (0.0, 0.0, distance_m),
        incident_energy=config.energy_ev,
        pixel_size_x=pixel_m,
        pixel_size_y=pixel_m,
    )


def _image(config: ReplayConfig, number: int, frame: Frame, start_s: float, stop_s: float) -> ImageMessage:
    encoded = frame if isinstance(frame, EncodedFrame) else encode_frame(frame, config.compression)
    start, stop = round(start_s * TIME_BASE_HZ), round(stop_s * TIME_BASE_HZ)
    return ImageMessage(
        series_id=config.series_id,
        series_unique_id=config.series_uid or None,
        image_id=number,
        real_time=(stop - start, TIME_BASE_HZ),
        start_time=(start, TIME_BASE_HZ),
        stop_time=(stop, TIME_BASE_HZ),
        data={config.channel: encoded},
    )
