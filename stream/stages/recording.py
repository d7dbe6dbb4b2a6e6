"""The detector's side of one scan: frames into their columns, a byte per frame, counters; when it is over.

The value is stored first, then its byte, then the head: a process that dies in between leaves nothing that
looks recorded and is not.
"""

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream.atomic import DiskFullError
from stream.detector.dectris import DetectorMessageError, ImageMessage, SeriesMessage, StartMessage
from stream.record.scan import Scan, State
from stream.stages.config import DetectorConfig

STAGE = "subscriber"
UNKNOWN = -1
FRAMES_BEYOND_HEAD = 1 << 16  # where a process that died may have left bytes


class Recording:
    """Writes the frames of `scan`; goes on where an earlier process stopped.

    Parameters
    ----------
    scan : Scan
        Nobody else records into it.
    channel : str
        Which channel of the detector, "" for the first.

    Attributes
    ----------
    counters : Counters
        Of this writer; the caller counts what never became a frame.
    problems : list of str
        What was wrong with frames since the caller last emptied it.
    n_seen, n_recorded : int
        Frames that came, usable or not, and frames stored.
    """

    def __init__(self, scan: Scan, channel: str = "") -> None:
        self.scan, self._channel = scan, channel
        self.counters = scan.counters(STAGE, writable=True)
        self.problems: list[str] = []
        self._frames = scan.column("frames", writable=True)
        self._exposed = scan.column("exposed_s", writable=True)
        self._received = scan.column("received_s", writable=True)
        self._ledger = scan.ledger(STAGE, writable=True)
        # The ledger in memory, because it is asked for every frame.
        states = self._ledger.head(self.counters["head"] + FRAMES_BEYOND_HEAD)
        self._states = bytearray(states.tobytes().rstrip(b"\0").ljust(self.counters["head"], b"\0"))
        self._damaged: set[int] = set()  # came, and may come again as it should be: BAD at the end only
        self.n_seen = len(self._states) - self._states.count(State.PENDING)
        self.n_recorded = self._states.count(State.DONE)
        self.counters["head"] = self.head
        self._n_room = 0
        self._is_full = False
        # One buffer for all: it stays in the processor's cache between decoding and storing.
        self._pixels = np.empty(self._frames.item_shape, self._frames.dtype)

    @property
    def head(self) -> int:
        """One more than the largest frame number seen."""
        return len(self._states)

    def reserve(self, n_frames: int) -> None:
        """Makes room for frames 0 to `n_frames` - 1.

        Raises
        ------
        DiskFullError
            If they do not fit.
        """
        per_segment = self._frames.segment_frames
        n_frames = -(-n_frames // per_segment) * per_segment
        # A number far beyond what is known may be damage: it must not fill the disk before it fails.
        n_known = max(self.counters["announced"], self.head, self.counters["joined"])
        n_beyond = n_frames - n_known - per_segment
        check_room(self.scan.folder, n_beyond * self._frame_bytes, f"frames up to {n_frames - 1}")
        # The ledger comes first: a frame without room for its pixels is still accounted for.
        for column in (self._ledger, self._exposed, self._received, self._frames):
            column.reserve(n_frames)
        self._n_room = n_frames

    def join(self, images: Sequence[ImageMessage]) -> None:
        """Takes note that the start of the series was missed: what comes before `images` is not awaited."""
        first = min(image.image_id for image in images)
        self.counters["joined"] = self._frames.first_frame = min(first, self.counters["joined"] or first)

    def record(self, images: Sequence[ImageMessage], received_s: float) -> None:
        """Stores the frames that are new and counts the others."""
        self._is_full = False
        by_state: dict[State, list[ImageMessage]] = {state: [] for state in State}
        for image in images:
            by_state[self._take(image)].append(image)
        numbers = [image.image_id for image in by_state[State.DONE]]
        self._exposed.write(numbers, [image.exposed_s for image in by_state[State.DONE]])
        self._received.write(numbers, received_s)
        for state in (State.DONE, State.NO_ROOM):
            self._mark([image.image_id for image in by_state[state]], state)
        self.counters["head"] = self.head
        for image in by_state[State.PENDING]:
            self._count_again(image)

    def close(self, n_expected: int) -> int:
        """Marks the frames that never came LOST and ends the scan; returns how many they are."""
        n_frames = max(n_expected, self.head)
        self._mark(sorted(self._damaged), State.BAD)
        lost = np.flatnonzero(self._ledger.head(n_frames) == State.PENDING)
        self._mark(lost, State.LOST)
        self.counters["head"] = n_frames
        self.counters["ended"] = 1
        self.counters["closed"] = 1
        return int(lost.size)

    @property
    def _frame_bytes(self) -> int:
        return self._frames.dtype.itemsize * int(np.prod(self._frames.item_shape, dtype=np.int64))

    def _take(self, image: ImageMessage) -> State:
        """Stores one frame; says what became of it, PENDING for one that came before.

        Of a damaged one the ledger says nothing yet: no stage looks again at a frame once it is BAD.
        """
        number = image.image_id
        if number < self.head and self._states[number] != State.PENDING:
            return State.PENDING
        state = State.DONE
        if not self._has_room(number):
            state = State.NO_ROOM
        elif not self._decode(image):
            state = State.BAD
        else:
            self._frames.put(number, self._pixels)
        self._states.extend(bytes(max(number + 1 - self.head, 0)))
        is_again = number in self._damaged
        self.n_seen += not is_again
        if state == State.BAD:
            self._damaged.add(number)
            return State.PENDING if is_again else State.BAD
        self._damaged.discard(number)
        self._states[number] = state
        self.n_recorded += state == State.DONE
        return state

    def _decode(self, image: ImageMessage) -> bool:
        try:
            image.frame(self._channel).decode_into(self._pixels)
        except DetectorMessageError as error:
            self.problems.append(f"frame {image.image_id} of scan {self.scan.name}: {error}")
            return False
        return True

    def _count_again(self, image: ImageMessage) -> None:
        number = image.image_id
        self.counters["duplicates"] += 1  # of damaged copies too
        is_comparable = self._states[number] == State.DONE and self._decode(image)
        if is_comparable and not np.array_equal(self._frames.read(number)[0], self._pixels):
            self.counters["conflicts"] += 1
            self.problems.append(f"frame {number} came again with other pixels; the first stays")

    def _has_room(self, number: int) -> bool:
        if number >= self._n_room and not self._is_full:
            try:
                self.reserve(number + 1)
            except DiskFullError as error:
                self._is_full = True
                self.problems.append(f"frame {number} and what follows are not stored: {error}")
        return number < self._n_room

    def _mark(self, numbers: Sequence[int] | np.ndarray, state: State) -> None:
        if not len(numbers):
            return
        try:
            self.scan.mark(STAGE, numbers, state)
        except DiskFullError as error:
            self.problems.append(f"{len(numbers)} frames cannot be marked {state.name}: {error}")


class Series:
    """A series of the detector while it is open; its recording exists once the kind of frame is known."""

    def __init__(self, series_id: int, series_uid: str | None) -> None:
        self.series_id, self.series_uid = series_id, series_uid
        self.key = SeriesMessage(series_id=series_id, series_unique_id=series_uid).key
        self.start: StartMessage | None = None
        self.recording: Recording | None = None
        self.n_announced = UNKNOWN
        self.is_joined = False  # it began with a frame: its start was missed, as far as is known
        self.is_resumed = False  # an earlier process began it, and nothing of it has come since
        self.last_at: float | None = None  # when the last frame came
        self.end_at: float | None = None  # when the end message came
        self.superseded_at: float | None = None  # when the start of another series came

    @property
    def n_known(self) -> int:
        """One more than the largest number of a frame that has come or was announced."""
        recording = self.recording
        return max(self.n_announced, recording.head if recording else 0)

    @property
    def may_be_over(self) -> bool:
        """Whether a message of another series need not be doubted."""
        return self.end_at is not None or self.is_complete or self.is_resumed

    @property
    def is_complete(self) -> bool:
        """Whether every announced frame is here, and none is missing below the last."""
        if self.n_announced == UNKNOWN:
            return False
        n_seen, head = (self.recording.n_seen, self.recording.head) if self.recording else (0, 0)
        return n_seen >= max(self.n_announced, head)

    @property
    def is_longer_than_announced(self) -> bool:
        """Whether what was announced is not to be believed."""
        return self.recording is not None and UNKNOWN < self.n_announced < self.recording.head

    def is_over(self, now: float, config: DetectorConfig) -> bool:
        """Whether nothing more is to be expected."""
        if self.end_at is not None and self.is_complete:
            return True
        moments = (self.last_at, self.end_at, self.superseded_at)
        quiet_s = now - max((at for at in moments if at is not None), default=now)
        is_ended = self.end_at is not None or self.superseded_at is not None
        if is_ended or (self.is_complete and not self.is_longer_than_announced):
            return quiet_s >= config.end_grace_s
        return 0 < config.silence_s <= quiet_s


def check_room(folder: Path, n_bytes: int, what: str) -> None:
    """Raises DiskFullError unless the file system of `folder` has `n_bytes` free for `what`."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise DiskFullError(
            errno.ENOSPC,
            f"{what} need {n_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free: "
            "make room or use another --save",
            str(folder),
        )
