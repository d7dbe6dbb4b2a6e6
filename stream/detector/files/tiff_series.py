"""A series in a folder of TIFFs: one frame a file, its number in the name."""

import math
import os
import re
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile

from stream.detector.files.series import Description, Numbered
from stream.detector.protocol import DTYPES, MAX_PIXELS, DetectorMessageError, EncodedFrame

TIFF = re.compile(r"(.*?)(\d+)(\.tiff?)", re.IGNORECASE)
LIST_S = 0.5  # between two lists of the whole folder
HALF_S = 2.0  # a file that does not grow for so long, and is none, will never be one
_PLAIN = frozenset(DTYPES.values())


class TiffSeries:
    """The frames in a folder; see `FileSeries`.

    Parameters
    ----------
    path : Path
        The folder.
    first_number : int or None
        Of the first frame; None takes 0 or 1, whichever is there, else the lowest.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self, path: Path, first_number: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self.waits_for, self.is_complete = path, "", False
        self._first, self._clock = first_number, clock
        self._skipped, self._lists_at = 0, float("-inf")
        self._newest: tuple[int, Path] | None = None
        self._waiting: dict[int, Path] = {}  # not read yet, by the number in their names
        self._read: set[int] = set()
        self._seen: dict[int, tuple[int, float]] = {}  # size of a file that is none so far, and since when

    def skip(self, n_frames: int) -> None:
        """Passes over frames before this number."""
        self._skipped = n_frames

    def describe(self) -> Description:
        """Returns nothing: TIFFs say nothing of a series."""
        return Description()

    def close(self) -> None:
        """Has nothing open."""

    def read(self, n_most: int, most_bytes: int) -> list[Numbered]:
        """Returns the next frames that have been written since; raises as `FileSeries.read`."""
        self._look(n_most)
        if not self._waiting:
            return []
        if self._first is None:
            lowest = min(self._waiting)
            self._first = lowest if lowest > 1 else min(lowest, 1)
        found: list[Numbered] = []
        n_bytes = 0
        for number in sorted(self._waiting):
            if len(found) >= n_most or n_bytes >= most_bytes:
                break
            path = self._waiting[number]
            try:
                frame = self._frame(number, path)
            except DetectorMessageError:
                if found:
                    break
                self._forget(number)
                raise
            if frame is None:
                continue
            self._forget(number)
            place = number - self._first
            if place >= self._skipped:
                found.append(Numbered(place, frame))
                n_bytes += len(frame.data)
        return found

    def _look(self, n_most: int) -> None:
        """Look for the files that come next by their names or, now and then, for all."""
        if self._newest is not None:
            for _ in range(n_most):
                number, path = self._newest[0] + 1, _following(self._newest[1])
                if not os.path.exists(path):  # noqa: PTH110 -- says no where it may not look
                    break
                self._waiting[number] = path
                self._newest = number, path
        now = self._clock()
        if self._waiting or now < self._lists_at:
            return
        try:
            names = [each.name for each in self.path.iterdir()]
        except OSError as error:
            self.waits_for = f"{self.path} cannot be listed: {error.strerror}"
            return
        found = {int(match[2]): self.path / match[0] for match in map(TIFF.fullmatch, names) if match}
        self.waits_for = "" if found else f"{self.path} has no file NAME123.tif yet"
        # In order: what is nearly sorted is sorted fast, and that is done at each look.
        self._waiting = {number: found[number] for number in sorted(found) if number not in self._read}
        self._newest = max(found.items()) if found else None
        # A long list costs a twentieth of the time at most.
        self._lists_at = now + max(LIST_S, 20 * (self._clock() - now))

    def _forget(self, number: int) -> None:
        self._waiting.pop(number, None)
        self._seen.pop(number, None)
        self._read.add(number)

    def _frame(self, number: int, path: Path) -> EncodedFrame | None:
        """Return the frame in a file, None while the file may still be written."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DetectorMessageError(f"{path} has been removed before it was read") from None
        except OSError as error:
            raise DetectorMessageError(f"{path} cannot be read: {error.strerror}") from error
        try:
            with tifffile.TiffFile(BytesIO(content)) as file:
                found = file.series[0]
                pixels = found.asarray() if math.prod(found.shape) <= MAX_PIXELS else None
        except Exception as error:  # whatever the library makes of half a file
            size, since = self._seen.get(number, (-1, 0.0))
            if len(content) != size:
                self._seen[number] = len(content), self._clock()
            elif self._clock() - since >= HALF_S:
                raise DetectorMessageError(f"{path} is no TIFF of one frame: {error}") from error
            return None
        if pixels is None or pixels.ndim != 2 or pixels.dtype.kind not in "ui":
            raise DetectorMessageError(
                f"{path} holds {found.dtype} {found.shape}: wanted one frame (row, col) of whole numbers, "
                f"{MAX_PIXELS} pixels at most"
            )
        dtype = pixels.dtype.newbyteorder("<")
        if dtype.str not in _PLAIN:
            raise DetectorMessageError(f"{path} holds {pixels.dtype}: wanted one of {', '.join(DTYPES)}")
        data = np.ascontiguousarray(pixels.astype(dtype, copy=False)).tobytes()
        return EncodedFrame(shape=pixels.shape, dtype=dtype.str, data=data)


def _following(path: Path) -> Path:
    """Return the file with the next number, as many digits wide."""
    prefix, digits, suffix = TIFF.fullmatch(path.name).groups()  # type: ignore[union-attr]
    return path.with_name(f"{prefix}{int(digits) + 1:0{len(digits)}}{suffix}")
