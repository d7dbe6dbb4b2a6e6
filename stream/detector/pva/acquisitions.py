"""Series of a detector that names none: told apart by the numbers and times of its exposures alone.

areaDetector counts its arrays (`uniqueId`) from 1 on. Some set the counter back before every acquisition,
some let it count on for days; neither the beginning of an acquisition nor its end is told.
"""

import logging
import re
import time
from datetime import UTC, datetime
from typing import NamedTuple

from stream.detector.doubts import MOST_OVERTAKEN
from stream.detector.protocol import (
    DetectorMessage,
    DetectorMessageError,
    EndMessage,
    ImageMessage,
    StartMessage,
)
from stream.detector.pva.ntndarray import Exposure
from stream.wire.foreign import in_short

log = logging.getLogger(__name__)

CHANNEL = "image"


class _Last(NamedTuple):
    number: int
    stamp_s: float


class Acquisitions:
    """Makes messages of the exposures of one detector, which belong to one series after the other.

    Another series begins after `silence_s` without an exposure, and where the counter was set back: a number
    that is no larger, of a later time. Frame 0 is the exposure `first_number`. Where that is None, it is the
    one that the counter was to give next: what follows the last exposure of the series before, or 1, or 0; an
    exposure far from all of these is frame 0 itself. A series that is joined on the way counts from 1.

    Parameters
    ----------
    name : str
        Of the detector, for the names of series.
    silence_s : float
    first_number : int or None
    """

    def __init__(self, name: str, silence_s: float, first_number: int | None = None) -> None:
        self._name, self._silence_s, self._configured = name, silence_s, first_number
        self._key, self._first, self._n_series = "", 0, 0  # the key is empty while no series is open
        self._last: _Last | None = None
        self._last_at = 0.0
        self._held: Exposure | None = None  # what the PV held when it was connected to

    @property
    def is_open(self) -> bool:
        """Whether there is a series that goes on."""
        return bool(self._key)

    def resume(self, key: str, n_frames: int, now: float) -> None:
        """Goes on with a series that a process before this one has recorded `n_frames` of."""
        if (found := re.search(r"-(\d+)$", key)) is None or not key.startswith(f"{self._name}-"):
            return
        self._key, self._first, self._last_at = key, int(found[1]), now
        self._last = _Last(self._first + n_frames - 1, 0.0)

    def look(self, now: float) -> list[DetectorMessage]:
        """Returns the end of the series that is open, if nothing has come for too long."""
        return self._end() if self._key and now - self._last_at >= self._silence_s else []

    def take(self, exposure: Exposure, now: float, *, is_old: bool = False) -> list[DetectorMessage]:
        """Returns the messages that an exposure makes.

        Parameters
        ----------
        exposure : Exposure
        now : float
            Monotonic seconds, when it came.
        is_old : bool
            Whether it is what the PV held when it was connected to.

        Raises
        ------
        DetectorMessageError
            If it is no frame of a series that is still open.
        """
        number = exposure.number
        if type(number) is not int or number < 0:
            raise DetectorMessageError(f"image number (uniqueId) {in_short(number)}: wanted 0 or more")
        if is_old and not self._is_next(exposure):
            return self._hold(exposure)
        held, self._held = self._held, None
        messages: list[DetectorMessage] = []
        if not self._key or not self._goes_on(exposure):
            before = held if held is not None and self._follows(exposure, held) else None
            first = self._first_of(before.number if before else number, is_joined=before is not None)
            self._check(number, first)
            messages += self._end()
            self._open(exposure, first)
            if before is None:
                messages.append(self._start(exposure))
            elif before.number >= first:
                messages.append(self._image(before))
            self._last = None
        self._check(number, self._first)
        messages.append(self._image(exposure))
        if self._last is None or number > self._last.number:
            self._last = _Last(number, exposure.stamp_s)
        self._last_at = now
        return messages

    def _is_next(self, exposure: Exposure) -> bool:
        """Whether what a PV holds is of the series that is open, and new."""
        return bool(self._key) and self._last is not None and exposure.number > self._last.number

    def _hold(self, exposure: Exposure) -> list[DetectorMessage]:
        """Keep what a PV held when it was connected to, of whatever series: what comes next will tell."""
        last, self._held = self._last, exposure
        if self._key and last is not None and exposure.number == last.number:
            return []
        self._last = _Last(exposure.number, exposure.stamp_s)
        return self._end()

    def _goes_on(self, exposure: Exposure) -> bool:
        """Whether an exposure is one of the series that is open."""
        last, number, stamp_s = self._last, exposure.number, exposure.stamp_s
        if last is None:
            return True
        if not stamp_s or not last.stamp_s:
            return number >= last.number
        later_s = stamp_s - last.stamp_s
        if number > last.number and -self._silence_s < later_s < 0:
            raise DetectorMessageError(f"image {number} is older than those before: of a series that is over")
        return later_s <= 0 or (number > last.number and later_s < self._silence_s)

    def _follows(self, exposure: Exposure, held: Exposure) -> bool:
        return bool(held.stamp_s) and (
            exposure.number > held.number and 0 <= exposure.stamp_s - held.stamp_s < self._silence_s
        )

    def _first_of(self, number: int, *, is_joined: bool) -> int:
        """Return the number of the first exposure of a series that is first seen at `number`."""
        if self._configured is not None:
            return self._configured
        if is_joined:
            if number > 1:
                log.warning(
                    "%s is joined at image %d: its first is taken to be image 1; where it is not, set "
                    "detector.first_number",
                    self._name, number,
                )  # fmt: skip
            return min(number, 1)
        awaited = ([self._last.number + 1] if self._last else []) + [1, 0]
        return next((first for first in awaited if 0 <= number - first <= MOST_OVERTAKEN), number)

    def _open(self, exposure: Exposure, first: int) -> None:
        began = datetime.fromtimestamp(exposure.stamp_s or time.time(), UTC)
        self._key, self._first = f"{self._name}-{began:%Y%m%dT%H%M%S.%f}-{first}", first
        self._n_series += 1

    def _start(self, exposure: Exposure) -> StartMessage:
        rows, columns = exposure.frame.shape
        return StartMessage(
            series_id=self._n_series,
            series_unique_id=self._key,
            image_size_x=columns,
            image_size_y=rows,
            channels=(CHANNEL,),
            detector_description=self._name,
        )

    def _check(self, number: int, first: int) -> None:
        if number < first:
            raise DetectorMessageError(f"image {number} of {self._name} comes before the first, {first}")

    def _image(self, exposure: Exposure) -> ImageMessage:
        return ImageMessage(
            series_id=self._n_series,
            series_unique_id=self._key,
            image_id=exposure.number - self._first,
            data={CHANNEL: exposure.frame},
        )

    def _end(self) -> list[DetectorMessage]:
        if not self._key:
            return []
        message = EndMessage(series_id=self._n_series, series_unique_id=self._key)
        self._key = ""
        return [message]
