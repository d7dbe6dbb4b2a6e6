"""A detector that writes files: series after series of frames, as far as they are written."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from stream.detector.config import DetectorConfig
from stream.detector.files.hdf5_series import Hdf5Series
from stream.detector.files.series import FileSeries, Numbered, key_of, name_in, name_of, start_of
from stream.detector.files.tiff_series import TiffSeries
from stream.detector.files.watch import is_pattern, series_at
from stream.detector.files.writer import State
from stream.detector.protocol import DetectorMessage, DetectorMessageError, EndMessage, ImageMessage

log = logging.getLogger(__name__)

FRAMES_PER_CALL, BYTES_PER_CALL = 256, 32 << 20
LOOK_S = 0.02  # between two looks at a file that had nothing new
LIST_S = 0.5  # between two looks for the next series
PATIENCE_S = 5.0  # after which somebody is told what is waited for
CHANNEL = "file"


class FilesFeed:
    """Feed: the frames in files.

    One series after the other is read. One is over when its files say so, when nothing has come for
    `silence_s`, or when another has begun and this one has nothing new for `end_grace_s`.

    Parameters
    ----------
    config : DetectorConfig
    clock : callable
        Monotonic seconds.
    wall_clock : callable
        Of the file system's times, seconds.
    """

    def __init__(
        self,
        config: DetectorConfig,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        assert config.path is not None  # noqa: S101 -- the section has checked it
        self._config, self._place, self._clock = config, Path(config.path), clock
        self._open: FileSeries | None = None
        self._opened: State | None = None  # what it was then
        self._key, self._n_series, self._why_none = "", 0, ""
        self._resumed: tuple[str, int] | None = None
        self._error: DetectorMessageError | None = None
        self._last_at = self._looks_at = self._lists_at = float("-inf")
        self._began_at = self._waits_since = clock()
        self._is_told = False
        self._passed: dict[Path, State | None] = {}  # what has been dealt with, as it was then
        self._ended: set[str] = set()  # keys of series
        if is_pattern(self._place) or self._place.is_dir():
            self._pass(self._old_ones(wall_clock()))

    def resume(self, series_key: str, n_frames: int, n_whole: int) -> None:
        """Goes on with a series that a process before this one has recorded: see `Feed`."""
        self._resumed = series_key, n_whole
        name, places = name_in(series_key), self._series()
        at = next((index for index, path in enumerate(places) if name_of(path) == name), None)
        if at is not None:  # whatever comes behind it is new
            self._passed.clear()
            self._pass(places[:at])

    def receive(self) -> Sequence[DetectorMessage]:
        """Returns what has come since, as much as a turn takes; see `Feed`."""
        if (error := self._error) is not None:
            self._error = None
            raise error
        now = self._clock()
        if now < self._looks_at:
            return []
        messages = self._next(now)
        if not messages and now - self._began_at >= self._config.silence_s:
            messages = self._end_resumed()
        if not messages:
            self._looks_at = now + LOOK_S
            self._tell(now)
        else:
            self._waits_since, self._is_told = now, False
        return messages

    def close(self) -> None:
        """Lets go of the files."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _old_ones(self, now_s: float) -> list[Path]:
        """Return what was complete when the run began, where only what comes is wanted."""
        if self._config.takes_old:
            return []
        old = [
            path
            for path in self._series()
            if (state := State.of(path)) is not None
            and now_s - state.changed_ns * 1e-9 > self._config.silence_s
        ]
        # A folder of frames is one series, whatever is in it.
        return [path for path in old if path != self._place]

    def _next(self, now: float) -> list[DetectorMessage]:
        if self._open is None and not self._open_next(now):
            return []
        assert self._open is not None  # noqa: S101
        try:
            frames = self._open.read(FRAMES_PER_CALL, BYTES_PER_CALL)
        except DetectorMessageError as error:
            self._error, self._last_at = error, now
            return []
        messages: list[DetectorMessage] = []
        if frames:
            self._last_at = now
            messages += self._begin(self._open, frames[0])
            if self._key in self._ended:
                log.info("%s has been written to after its series ended: that is not taken again", self._key)
                self._key = ""
                self._end()
                return []
        messages += [self._image(each) for each in frames]
        if self._is_over(now, has_frames=bool(frames)):
            messages += self._end()
        return messages

    def _open_next(self, now: float) -> bool:
        path = next(filter(self._is_new, self._found(now)), None)
        if path is None:
            return False
        self._open, self._opened = open_series(path, self._config, self._clock), State.of(path)
        self._last_at = now
        return True

    def _begin(self, series: FileSeries, first: Numbered) -> list[DetectorMessage]:
        """Return the start of a series, with its first frames."""
        if self._key:
            return []
        self._n_series += 1
        self._key = key_of(series.path, first.frame)
        messages: list[DetectorMessage] = []
        if self._resumed is not None:
            key, n_whole = self._resumed
            if key == self._key:
                series.skip(n_whole)
                self._resumed = None
            else:
                messages += self._end_resumed()
        return [*messages, start_of(self._key, self._n_series, series.path, first.frame, series.describe())]

    def _end_resumed(self) -> list[DetectorMessage]:
        """Return the end of a series that is not there any more."""
        if self._resumed is None:
            return []
        key, self._resumed = self._resumed[0], None
        return [EndMessage(series_id=0, series_unique_id=key)]

    def _image(self, each: Numbered) -> ImageMessage:
        return ImageMessage(
            series_id=self._n_series,
            series_unique_id=self._key,
            image_id=each.number,
            data={CHANNEL: each.frame},
        )

    def _is_over(self, now: float, *, has_frames: bool) -> bool:
        assert self._open is not None  # noqa: S101
        if self._open.is_complete:
            return True
        silent_s = now - self._last_at
        if has_frames:
            return False
        if not self._key:  # nothing could be read of it
            return silent_s >= self._config.silence_s and self._has_next(now)
        return silent_s >= self._config.silence_s or (
            silent_s >= self._config.end_grace_s and self._has_next(now)
        )

    def _has_next(self, now: float) -> bool:
        here = self._open.path if self._open else None
        return any(path != here and self._is_new(path) for path in self._found(now))

    def _found(self, now: float) -> list[Path]:
        """Return the series that there are, or none when the last look was a moment ago."""
        if now < self._lists_at:
            return []
        found = self._series()
        # A long list costs a twentieth of the time at most.
        self._lists_at = now + max(LIST_S, 20 * (self._clock() - now))
        return found

    def _series(self) -> list[Path]:
        try:
            found, self._why_none = series_at(self._place), ""
        except OSError as error:
            found, self._why_none = [], f"{self._place} cannot be listed: {error.strerror}"
        return found

    def _is_new(self, path: Path) -> bool:
        """Whether there is something that has not been dealt with, such as another file of the same name."""
        return path not in self._passed or State.of(path) not in (None, self._passed[path])

    def _pass(self, paths: Iterable[Path]) -> None:
        self._passed.update((path, State.of(path)) for path in paths)

    def _end(self) -> list[DetectorMessage]:
        assert self._open is not None  # noqa: S101
        path, state = self._open.path, State.of(self._open.path)
        is_another = state is not None and self._opened is not None and state.inode != self._opened.inode
        self._passed[path] = None if is_another else state
        self.close()
        key, self._key = self._key, ""
        self._ended.add(key)
        return [EndMessage(series_id=self._n_series, series_unique_id=key)] if key else []

    def _tell(self, now: float) -> None:
        """Say what is waited for, where nothing has come for a while."""
        waits_for_first = self._open is not None or not self._ended
        if self._is_told or not waits_for_first or now - self._waits_since < PATIENCE_S:
            return
        self._is_told = True
        why = self._why_none or f"{self._place} has no series that is new"
        if self._open is not None:
            why = self._open.waits_for
        if why:
            log.warning("frames wait: %s", why)


def open_series(
    path: Path, config: DetectorConfig, clock: Callable[[], float] = time.monotonic
) -> FileSeries:
    """Returns the series in a file, or in a folder of TIFFs."""
    if path.is_dir():
        return TiffSeries(path, config.first_number, clock)
    return Hdf5Series(path, config.dataset, clock)


def files_feed(config: DetectorConfig) -> FilesFeed:
    """Returns the feed of the files that are configured."""
    return FilesFeed(config)
