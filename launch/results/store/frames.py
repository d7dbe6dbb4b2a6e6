"""The recorded frames of a scan as one HDF5 file, which the store refers to, and as an array read back.

HDF5 with the bitshuffle filter reads it.
"""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from operators.arrays import Frames
from stream.atomic import replacing
from stream.record.scan import Scan

FRAMES_DATASET, NUMBERS_DATASET, POSITIONS_DATASET = "entry/frames", "entry/frame_number", "entry/positions_m"
FRAMES_AT_A_TIME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesFile:
    """Where the frames of a scan lie, and of which shape and type they are.

    Attributes
    ----------
    path : Path
    n_frames : int
        Frames that were recorded; lost ones are not in the file.
    frame_shape : (int, int)
    frame_dtype : str
    """

    path: Path
    n_frames: int
    frame_shape: tuple[int, int]
    frame_dtype: str


class StoredFrames:
    """Frames of a stored run as an array, (frame, row, col), fetched in blocks.

    One by one they would cost a request to the catalogue each, some forty milliseconds.

    Parameters
    ----------
    array : tiled client
        The frames in the catalogue.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, int, int] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        self._first, self._block = 0, np.empty((0, *self.shape[1:]), self.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Frames:
        """Returns the frames that `index` selects along the first axis."""
        numbers = np.arange(len(self))[index]
        if np.ndim(numbers):
            first = numbers.min(initial=len(self))
            return self._fetch(first, numbers.max(initial=0) + 1)[numbers - first]
        if not self._first <= numbers < self._first + len(self._block):
            self._first, self._block = int(numbers), self._fetch(numbers, numbers + FRAMES_AT_A_TIME)
        return self._block[numbers - self._first]

    def _fetch(self, start: int, stop: int) -> Frames:
        return np.asarray(self._array[int(start) : min(int(stop), len(self))])


def write_frames(scan: Scan, folder: Path) -> FramesFile:
    """Returns the new file in `folder` with every recorded frame of `scan`, one chunk per frame.

    Beside the frames lie their numbers and the positions of the probe on the sample, metres, (y, x), NaN
    where none was recorded. The file appears when it is complete.
    """
    numbers = scan.done("subscriber")
    shape = scan.header.frame_shape
    path = _free_path(folder, scan.name)
    with replacing(path) as unfinished, h5py.File(unfinished, "w") as file:
        frames = file.create_dataset(
            FRAMES_DATASET,
            (len(numbers), *shape),
            scan.header.frame_dtype,
            chunks=(1, *shape) if len(numbers) else None,
            **(hdf5plugin.Bitshuffle(cname="lz4") if len(numbers) else {}),
        )
        for start in range(0, len(numbers), FRAMES_AT_A_TIME):
            rows = slice(start, start + FRAMES_AT_A_TIME)
            frames[rows] = scan.column("frames").read(numbers[rows])
        file[NUMBERS_DATASET] = numbers.astype(np.int64)
        file[POSITIONS_DATASET] = scan.positions_m(numbers)
    return FramesFile(
        path=path, n_frames=len(numbers), frame_shape=shape, frame_dtype=scan.header.frame_dtype
    )


def _free_path(folder: Path, name: str) -> Path:
    # The same name in another run's folder is another scan.
    paths = (folder / f"{name}{f'-{number}' if number else ''}.h5" for number in count())
    return next(path for path in paths if not path.exists())
