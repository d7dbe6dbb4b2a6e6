"""Frames of an HDF5 dataset while it is written: chunks as they lie in the file, pixels stay compressed."""

from typing import Any

import h5py
import numpy as np

from stream.detector.protocol import DTYPES, MAX_PIXELS, DetectorMessageError, EncodedFrame
from stream.files.base import ScanFileError
from stream.files.hdf5 import why_unread

LZ4, BITSHUFFLE = 32004, 32008  # registered filters
_BITSHUFFLED = {2: "bslz4", 3: "bszstd"}  # by what comes after the shuffling
_PLAIN = frozenset(DTYPES.values())


def check_frames(where: str, dataset: Any) -> None:
    """Refuses what is no stack of frames.

    Raises
    ------
    ScanFileError
        Naming what was wanted and what is there.
    """
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3 or dataset.dtype.kind not in "ui":
        found = f"{dataset.dtype} {dataset.shape}" if isinstance(dataset, h5py.Dataset) else "no dataset"
        raise ScanFileError(f"{where}: wanted whole numbers (frame, row, col), found {found}")
    if dataset.shape[1] * dataset.shape[2] > MAX_PIXELS:
        raise ScanFileError(f"{where}: frames of {dataset.shape[1:]}, wanted at most {MAX_PIXELS} pixels")


class FrameDataset:
    """The frames of one dataset (frame, row, col).

    Parameters
    ----------
    dataset : h5py.Dataset
        Of a file that is open.
    where : str
        What errors call it.

    Attributes
    ----------
    n_frames : int
        How many there were at the last look.
    """

    def __init__(self, dataset: Any, where: str) -> None:
        check_frames(where, dataset)
        self._dataset, self._where = dataset, where
        self.n_frames, *shape = dataset.shape
        self.shape = tuple(shape)
        self._can_have_holes = bool(dataset.chunks) and not dataset.is_virtual
        stored = dataset.dtype.str
        self.dtype = stored if stored in _PLAIN else dataset.dtype.newbyteorder("<").str
        self._compression = self._of_chunks() if stored in _PLAIN else None

    def _of_chunks(self) -> tuple[str, int] | None:
        """Return how chunks are compressed, if each is a frame and we read it ourselves; else None."""
        properties = self._dataset.id.get_create_plist()
        if self._dataset.chunks != (1, *self.shape) or self._dataset.is_virtual:
            return None
        filters = [properties.get_filter(index) for index in range(properties.get_nfilters())]
        if not filters:
            return "", 0
        number, _, values, _ = filters[0]
        if len(filters) > 1:
            return None
        if number == LZ4:
            return "lz4", 0
        if number == BITSHUFFLE and len(values) > 4:
            compression = _BITSHUFFLED.get(values[4])
            return None if compression is None else (compression, self._dataset.dtype.itemsize)
        return None

    @property
    def low(self) -> int | None:
        """The number of its first frame in the series, None where DECTRIS' attribute is missing."""
        low = self._dataset.attrs.get("image_nr_low")
        return None if low is None else int(low) - 1

    def refresh(self) -> None:
        """Looks again how far its writer has come."""
        self._dataset.refresh()  # of the object, which remembers its shape
        self.n_frames = self._dataset.shape[0]

    def is_there(self, number: int) -> bool:
        """Says whether a frame has been written, of datasets that tell."""
        if number >= self.n_frames:
            return False
        if not self._can_have_holes:
            return True
        return self._dataset.id.get_chunk_info_by_coord((number, 0, 0)).byte_offset is not None

    def frame(self, number: int) -> EncodedFrame | None:
        """Returns a frame, None where it has room in the file and nothing has been written there yet.

        Raises
        ------
        DetectorMessageError
            If it cannot be read.
        """
        try:
            return self._read(number)
        except (OSError, RuntimeError, ValueError) as error:
            reason = why_unread(error) if isinstance(error, OSError) else "it is damaged"
            raise DetectorMessageError(f"frame {number} of {self._where}: {reason}") from error

    def _read(self, number: int) -> EncodedFrame | None:
        if number >= self.n_frames:
            return None
        if self._compression is not None:
            try:
                mask, data = self._dataset.id.read_direct_chunk((number, 0, 0))
            except (OSError, RuntimeError, ValueError):
                if not self.is_there(number):  # asking first would take longer than reading
                    return None
                raise
            compression, item_size = ("", 0) if mask else self._compression
            return self._encoded(data, compression, item_size)
        if not self.is_there(number):
            return None
        pixels = np.ascontiguousarray(self._dataset[number]).astype(self.dtype, copy=False)
        return self._encoded(pixels.tobytes())

    def _encoded(self, data: bytes, compression: str = "", item_size: int = 0) -> EncodedFrame:
        return EncodedFrame(
            shape=self.shape, dtype=self.dtype, compression=compression, item_size=item_size, data=data
        )
