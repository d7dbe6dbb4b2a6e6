"""The detector's side of one scan: its frames, room for them, what was wrong with them; when it is over."""

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream.atomic import DiskFullError
from stream.detector.protocol import DetectorMessageError, ImageMessage
from stream.record.passage import Passage
from stream.record.scan import Scan, State
from stream.stages.ingest.frame_writer import STAGE, FrameWriter

FRAMES_BEYOND_HEAD = 1 << 16  # where a process that died may have left bytes


class Recording:
    """Writes the frames of `scan`; goes on where an earlier process stopped.

    Parameters
    ----------
    scan : Scan
        Nobody else makes room in it or closes it; where its header says so, another process stores frames.
    channel : str
        Which channel of the detector, "" for the first.
    told : sequence of str
        As of `FrameWriter`.

    Attributes
    ----------
    counters : Counters
        Of the scan; the caller counts what never became a frame.
    problems : list of str
        What was wrong with frames since the caller last emptied it.
    n_seen, n_recorded : int
        Frames that came, usable or not, and frames stored.
    """

    def __init__(self, scan: Scan, channel: str = "", told: Sequence[str] = ()) -> None:
        self.scan, self._writer = scan, FrameWriter(scan, STAGE, channel, told)
        self.take_told = self._writer.take_told
        self.counters = self._writer.counters
        self.problems: list[str] = []
        states = self._writer.ledger.head(self.head + FRAMES_BEYOND_HEAD)
        came = np.flatnonzero(states != State.PENDING)
        self.n_seen, self.n_recorded = len(came), int((states == State.DONE).sum())
        if came.size:
            self._writer.see(int(came[-1]))
        self._damaged: set[int] = set()  # came, and may come again as it should be: BAD at the end only
        self._is_full = False
        self._passage = Passage(scan, (STAGE,)) if scan.header.n_subscribers > 1 else None

    @property
    def head(self) -> int:
        """One more than the largest frame number seen."""
        return self.scan.n_frames

    def look(self) -> bool:
        """Takes note of frames that another process has stored; says whether there are any."""
        if self._passage is None:
            return False
        self._passage.look()
        n_by_state, n_seen = self._passage.n_by_state(), self.n_seen
        self.n_recorded = int(n_by_state[State.DONE])
        self.n_seen = int(n_by_state[State.PENDING + 1 :].sum()) + len(self._damaged)
        return self.n_seen > n_seen

    def reserve(self, n_frames: int) -> None:
        """Makes room for frames 0 to `n_frames` - 1.

        Raises
        ------
        DiskFullError
            If they do not fit.
        """
        frames = self._writer.frames
        per_segment = frames.segment_frames
        n_frames = -(-n_frames // per_segment) * per_segment
        # A number far beyond what is known may be damage: it must not fill the disk before it fails.
        n_known = max(self.counters["announced"], self.head, self.counters["joined"])
        n_beyond = n_frames - n_known - per_segment
        check_room(self.scan.folder, n_beyond * frames.item_bytes, f"frames up to {n_frames - 1}")
        for column in self._writer.columns:
            column.reserve(n_frames)

    def join(self, images: Sequence[ImageMessage]) -> None:
        """Takes note that the start of the series was missed: what comes before `images` is not awaited."""
        first = min(image.image_id for image in images)
        first = min(first, self.counters["joined"] or first)
        self.counters["joined"] = self._writer.frames.first_frame = first

    def record(self, images: Sequence[ImageMessage], received_s: float) -> None:
        """Stores the frames that are new and counts the others."""
        self._is_full = False
        while images:
            self._make_room(images[0].image_id)
            n_stored = self._writer.write(images, received_s)
            self.n_recorded += n_stored
            self.n_seen += n_stored
            if self._damaged:
                repaired = self._damaged.intersection(image.image_id for image in images[:n_stored])
                self.n_seen -= len(repaired)
                self._damaged -= repaired
            if not n_stored:
                self._take_unusable(images[0])
            images = images[n_stored or 1 :]

    def close(self, n_expected: int) -> int:
        """Marks the frames that never came LOST and ends the scan; returns how many they are."""
        self.look()
        n_frames = max(n_expected, self.head)
        self._mark(sorted(self._damaged), State.BAD)
        lost = np.flatnonzero(self._writer.ledger.head(n_frames) == State.PENDING)
        self._mark(lost, State.LOST)
        self.counters["head"] = n_frames
        self.counters["ended"] = 1
        self.counters["closed"] = 1
        return int(lost.size)

    def _take_unusable(self, image: ImageMessage) -> None:
        """Counts one frame that came before, has no room or is damaged.

        Of a damaged one the ledger says nothing yet: no stage looks again at a frame once it is BAD.
        """
        number, writer = image.image_id, self._writer
        state = writer.ledger.read(number)[0]
        if state != State.PENDING:
            self._count_again(image, state)
            return
        is_again = number in self._damaged
        self.n_seen += not is_again
        writer.see(number)
        if not writer.has_room(number):
            self._damaged.discard(number)
            self._mark([number], State.NO_ROOM)
            return
        self._damaged.add(number)
        self.counters["duplicates"] += is_again
        self.problems.append(f"frame {number} of scan {self.scan.name}: {writer.problem}")

    def _count_again(self, image: ImageMessage, state: int) -> None:
        number, writer = image.image_id, self._writer
        self.counters["duplicates"] += 1
        if state != State.DONE:
            return
        try:
            pixels = writer.decode(image)
        except DetectorMessageError as error:
            self.problems.append(f"frame {number} of scan {self.scan.name} came again: {error}")
            return
        if not np.array_equal(writer.frames.read(number)[0], pixels):
            self.counters["conflicts"] += 1
            self.problems.append(f"frame {number} came again with other pixels; the first stays")

    def _make_room(self, number: int) -> None:
        if self._writer.has_room(number) or self._is_full:
            return
        try:
            self.reserve(number + 1)
        except DiskFullError as error:
            self._is_full = True
            self.problems.append(f"frame {number} and what follows are not stored: {error}")

    def _mark(self, numbers: Sequence[int] | np.ndarray, state: State) -> None:
        if not len(numbers):
            return
        try:
            self.scan.mark(STAGE, numbers, state)
        except DiskFullError as error:
            self.problems.append(f"{len(numbers)} frames cannot be marked {state.name}: {error}")


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
