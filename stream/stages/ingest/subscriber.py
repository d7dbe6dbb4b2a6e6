"""The stage that listens to the detector: messages become frames of a scan, and every frame is accounted for.

A series of the detector is a scan; what `stream.stages.ingest.recording` writes is all that other stages
know of it.

A series ends when its end message has come and no frame has for `end_grace_s` (at once if all announced
frames are there), when exactly the announced frames are there and the end message stays away, when another
series begins, or after `silence_s`; a pause alone ends nothing. Frames that never came are then LOST; what
comes later is counted, not stored.

One message alone, which may be damaged or from elsewhere, neither ends a series nor makes it longer than it
is: another series has begun when two of its images come in a row, or its start and nothing of the old one for
`end_grace_s`; a frame far beyond those known counts once another is near it.

A series whose frames do not fit on the disk is refused as a whole, with a sentence; the next one is tried.

A series whose start message was missed is joined: it is recorded from its first frame on, what is before is
LOST, and how many are to come nobody knows.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from stream.atomic import DiskFullError
from stream.detector.config import DetectorConfig
from stream.detector.doubts import MOST_OVERTAKEN, Doubts
from stream.detector.protocol import (
    DetectorMessage,
    DetectorMessageError,
    ImageMessage,
    SeriesMessage,
    StartMessage,
)
from stream.record.account import counted, never_came
from stream.record.scan import NewScans, Scan, ScanHeader, State, new_scan_name
from stream.stages.ingest.frame_writer import STAGE
from stream.stages.ingest.incoming import Incoming
from stream.stages.ingest.recording import Recording, check_room
from stream.stages.ingest.second import Second
from stream.stages.ingest.series import UNKNOWN, Series
from stream.stages.refusals import Complaints, in_words
from stream.wire.codec import Buffer
from stream.wire.foreign import printable

log = logging.getLogger(__name__)

SECOND_S = 10.0  # longest that a series stays open because the second process holds frames and does not move
HANDING_S = 1.0  # the same when frames of the next series are here

FrameKind = tuple[tuple[int, int], str]  # shape, dtype


class Subscriber:
    """Source: records every series of a detector into a scan of its own.

    If an earlier process left scans unfinished, it goes on with the newest and closes older ones.

    Parameters
    ----------
    config : DetectorConfig
    scans : Path
        Folder of scans.
    clock : callable
        Monotonic seconds; stamps the arrival of frames.
    run_id, config_hash, stages
        Stamped on the scans: of this run.
    results : Path, optional
        Folder in which other stages name files after scans. A number that stands there is not given again,
        though its scan may have been deleted.
    second : Second, optional
        The process that takes frames beside this one.
    told : sequence of str
        Keys of numbers in the user data of messages that are stored with the frames.
    """

    def __init__(
        self,
        config: DetectorConfig,
        scans: Path,
        clock: Callable[[], float] = time.monotonic,
        *,
        run_id: str = "",
        config_hash: str = "",
        stages: Sequence[str] = (),
        results: Path | None = None,
        second: Second | None = None,
        told: Sequence[str] = (),
    ) -> None:
        self._numbered = [scans, *([results] if results else [])]
        self.config, self._scans, self._clock = config, scans, clock
        self._run_id, self._config_hash, self._stages = run_id, config_hash, tuple(stages)
        self._second, self._told = second, told
        self._incoming = Incoming(config, self._reject, second.relay if second else None)
        self.inlet = self._incoming.inlet
        self._series: Series | None = None
        self._last: Recording | None = None
        self._closed: dict[str, Path] = {}
        self._next: StartMessage | None = None  # of another series, while one is open that may go on
        self._next_end_at: float | None = None  # when the end of that one came
        self._refused: dict[str, str] = {}  # why, by series
        self._doubts = Doubts()
        self._n_rejected = self._n_refused = 0
        self._complaints = Complaints(log, "messages of the detector refused")
        self._look_for_unfinished()

    def handle(self, messages: Sequence[Sequence[Buffer]]) -> None:
        """Takes messages in the order of arrival."""
        self._take(self._incoming.understood(messages))

    def fetch(self) -> int:
        """Takes what a detector says that sends nothing here; returns how many messages that was."""
        messages = self._incoming.fetched()
        self._take(messages)
        return len(messages)

    def _take(self, messages: Iterable[DetectorMessage]) -> None:
        now = self._clock()
        for series, group in groupby(messages, _series_of_image):
            if series:
                self._record([message for message in group if isinstance(message, ImageMessage)], now)
                continue
            for message in group:
                if isinstance(message, StartMessage):
                    self._start(message, now)
                elif self._series is not None and self._series.key == message.key:
                    self._series.end_at = now
                elif self._next is not None and self._next.key == message.key:
                    self._next_end_at = now

    def idle(self, now: float) -> None:
        """Closes the series when nothing more is to be expected, and says what was refused."""
        series = self._series
        if series is not None:
            if series.recording is not None and series.recording.look():
                series.last_at = now
            heeds_silence = not self._incoming.is_fed
            is_over = series.is_over(now, self.config, heeds_silence=heeds_silence)
            if is_over and not self._awaits_second(series, now):
                self._close_series()
        if self._series is None and self._next is not None:
            self._begin(self._next)
        self._complaints.say(now)

    def close(self) -> None:
        """Ends the open series; frames that never came are LOST."""
        self._close_series()
        if self._next is not None:
            self._begin(self._next)
            self._close_series()
        self._incoming.close()
        self._complaints.say(self._clock(), force=True)

    def _awaits_second(self, series: Series, now: float) -> bool:
        """Whether frames that are missing may be in the hands of the second process."""
        if self._second is None or series.is_complete:
            return False
        waits_s = series.quiet_s(now) - self.config.end_grace_s
        return waits_s < SECOND_S and self._second.is_behind(now - series.quiet_s(now))

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the name of the current or last scan, and how many frames came and were refused."""
        recording = (self._series and self._series.recording) or self._last
        refused = {"refused": self._n_refused} if self._n_refused else {}  # series
        if recording is None:
            return "", {"rejected": self._n_rejected} | refused
        counters = {name: recording.counters[name] for name in ("duplicates", "conflicts", "late")}
        expected = max(recording.head, recording.counters["announced"])
        seen = {"expected": expected, "recorded": recording.n_recorded, "rejected": self._n_rejected}
        return recording.scan.name, seen | counters | refused

    def _look_for_unfinished(self) -> None:
        self._scans.mkdir(parents=True, exist_ok=True)
        for name in NewScans(self._scans).names():
            self._close_series()  # it was left unfinished and is not the newest
            scan = Scan(self._scans / name)  # one at a time: there may be more than can be open
            if scan.count(STAGE, "closed"):
                self._remember_closed(scan)
            else:
                self._resume(scan)

    def _reject(self, reason: str, n: int = 1) -> None:
        self._n_rejected += n
        self._complaints.add(reason, n)
        if self._series is not None and self._series.recording is not None:
            self._series.recording.counters["rejected"] += n

    def _start(self, start: StartMessage, now: float) -> None:
        series = self._series
        if start.series_unique_id and start.key in self._closed:
            self._complaints.add(f"start of series {start.key}, which is over")
        elif series is None or series.may_be_over or series.key == start.key:
            self._begin(start)
        else:
            series.superseded_at, self._next, self._next_end_at = now, start, None

    def _begin(self, start: StartMessage) -> None:
        end_at = self._next_end_at if start is self._next else None
        self._next = self._next_end_at = None
        series = self._series
        # Without a unique id a second start can only be that of another series.
        is_again = series is not None and series.start is not None and not start.series_unique_id
        if series is None or series.key != start.key or is_again:
            self._close_series()
            self._closed.pop(start.key, None)
            self._refused.pop(start.key, None)  # there may be room by now
            series = self._series = Series(start.series_id, start.series_unique_id)
        series.start = start
        series.end_at = series.end_at if end_at is None else end_at
        series.n_announced = UNKNOWN
        if start.number_of_images is not None:
            series.n_announced = start.number_of_images * self.config.n_triggers
        series.is_joined = False
        if series.recording is not None:
            series.recording.counters["announced"] = series.n_announced
            series.recording.counters["joined"] = 0  # it was only late
        elif (kind := self._kind_of_frames(series, [])) is not None:
            self._open(series, *kind, series.n_announced)

    def _record(self, images: list[ImageMessage], now: float) -> None:
        key = images[0].key
        if self._next is not None and self._next.key == key:
            self._begin(self._next)
        if key in self._closed:
            self._count_late(images)
            return
        if key in self._refused:
            self._reject(self._refused[key], len(images))
            return
        series = self._series
        if series is None or series.key != key:
            if series is not None and not series.may_be_over:
                reason = f"an image of series {key} while {series.key} is not over, and no second one"
                images = self._believed(images, reason, is_repeat_enough=True)
                if not images:
                    return
            self._close_series()
            series = self._series = Series(images[0].series_id, images[0].series_unique_id)
            series.is_joined = True
        self._doubts.forget_others(key)
        images = self._without_far(series, images)
        if not images:
            return
        series.last_at, series.is_resumed = now, False
        if series.recording is None and (kind := self._kind_of_frames(series, images)) is not None:
            self._open(series, *kind, series.n_announced)
        if series.recording is None:
            if key not in self._refused:
                self._reject(
                    f"frame {images[-1].image_id} has no channel {self.config.channel!r}", len(images)
                )
            return
        if series.is_joined:
            series.recording.join(images)
            series.is_joined = series.recording.counters["joined"] > 0
        series.recording.record(images, now)
        for problem in series.recording.problems:
            self._complaints.add(problem)
        series.recording.problems.clear()

    def _count_late(self, images: list[ImageMessage]) -> None:
        key = images[0].key
        with contextlib.suppress(FileNotFoundError):  # somebody has deleted the scan
            Scan(self._closed[key]).counters(STAGE, writable=True)["late"] += len(images)
        self._complaints.add(f"frame {images[-1].image_id} of series {key}, which is over", len(images))

    def _without_far(self, series: Series, images: list[ImageMessage]) -> list[ImageMessage]:
        """Return the images without those that nobody should believe yet: one wild number is no scan."""
        most = series.n_known + MOST_OVERTAKEN
        if max(image.image_id for image in images) < most:
            return images
        near = [image for image in images if image.image_id < most]
        reason = (
            f"a frame of series {series.key} is far beyond {most - MOST_OVERTAKEN}, and no second one near it"
        )
        far = [image for image in images if image.image_id >= most]
        return near + self._believed(far, reason, is_repeat_enough=False)

    def _believed(
        self, images: list[ImageMessage], reason: str, *, is_repeat_enough: bool
    ) -> list[ImageMessage]:
        """Return those that a second one confirms; one that is held counts as rejected until then."""
        believed = self._doubts.believed(images, is_repeat_enough=is_repeat_enough)
        n_rejected = len(images) - len(believed)
        self._n_rejected += n_rejected
        if n_rejected > 0:
            self._complaints.add(f"frame {images[-1].image_id}: {reason}", n_rejected)
        return believed

    def _kind_of_frames(self, series: Series, images: list[ImageMessage]) -> FrameKind | None:
        """Returns shape and dtype as configured, as announced, or as the first usable frame has them."""
        shape = self.config.frame_shape or (series.start and series.start.frame_shape)
        dtype = self.config.frame_dtype or (series.start and series.start.frame_dtype)
        for image in images:
            if shape and dtype:
                break
            with contextlib.suppress(DetectorMessageError):
                frame = image.frame(self.config.channel)
                shape, dtype = shape or frame.shape, dtype or frame.dtype
        return (shape, dtype) if shape and dtype else None

    def _open(self, series: Series, shape: tuple[int, int], dtype: str, n_reserve: int) -> None:
        """Begin the recording of a series, or refuse the series if it does not fit."""
        n_reserve = max(n_reserve, 0)
        header = ScanHeader(
            series_id=series.series_id,
            series_uid=series.series_uid or "",
            frame_shape=shape,
            frame_dtype=dtype,
            started_s=time.time(),
            run_id=self._run_id,
            config_hash=self._config_hash,
            energy_ev=(series.start and series.start.incident_energy) or 0.0,
            stages=self._stages,
            n_subscribers=2 if self._second else 1,
        )
        folder = self._scans / new_scan_name(series.key, self._numbered)
        n_bytes = n_reserve * shape[0] * shape[1] * np.dtype(dtype).itemsize
        try:
            check_room(self._scans, n_bytes, f"the {n_reserve} frames that it announces")
            scan = Scan.create(folder, header, n_reserve)
            recording = Recording(scan, self.config.channel, self._told)
            recording.counters["announced"] = series.n_announced
            recording.reserve(n_reserve)
            recording.take_told(series.start and series.start.user_data)
        except (DiskFullError, MemoryError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._refuse(series, in_words(error))
            return
        series.recording = recording
        n_announced = "an unknown number of" if series.n_announced == UNKNOWN else series.n_announced
        log.info("scan %s begins: %s frames of %s %s", recording.scan.name, n_announced, shape, dtype)

    def _refuse(self, series: Series, reason: str) -> None:
        self._refused[series.key] = f"series {printable(series.key, 80)} is refused: {reason}"
        log.warning("%s; the next one is tried again", self._refused[series.key])
        self._n_refused += 1
        if self._series is series:
            self._series = None

    def _resume(self, scan: Scan) -> None:
        series = self._series = Series(scan.header.series_id, scan.header.series_uid or None)
        series.recording, series.is_resumed = Recording(scan, self.config.channel, self._told), True
        # Zero is what stands there when the process died before it wrote the number.
        series.n_announced = series.recording.counters["announced"] or UNKNOWN
        series.is_joined = series.recording.counters["joined"] > 0
        series.last_at = self._clock()
        n_frames = series.recording.head
        missing = np.flatnonzero(scan.states(STAGE, np.arange(n_frames)) != State.DONE)
        self._incoming.resume(series.key, n_frames, int(missing[0]) if missing.size else n_frames)
        log.info("scan %s goes on after %d frames", scan.name, series.recording.n_recorded)

    def _close_series(self) -> None:
        series = self._series
        if series is None:
            return
        if series.recording is None:  # not one frame came, which is worth a record too
            self._open(series, *(self._kind_of_frames(series, []) or ((1, 1), "<u2")), 0)
        recording = series.recording
        if recording is None:  # there is no room even for that
            return
        if self._second is not None and not series.is_complete:
            self._second.catch_up(HANDING_S)
        self._last = recording
        recording.close(series.n_announced)
        for problem in recording.problems:
            self._complaints.add(problem)
        missing = "; ".join(never_came(recording.scan))
        words = f"scan {recording.scan.name} is over: {counted(recording.n_recorded)} recorded"
        if missing:
            log.warning("%s; %s", words, missing)
        else:
            log.info("%s", words)
        self._remember_closed(recording.scan)
        self._closed[series.key] = recording.scan.folder
        self._series = None

    def _remember_closed(self, scan: Scan) -> None:
        if scan.header.series_uid:  # a number alone says nothing about another process's series
            self._closed[scan.header.series_uid] = scan.folder


def _series_of_image(message: SeriesMessage) -> str:
    return message.key if isinstance(message, ImageMessage) else ""
