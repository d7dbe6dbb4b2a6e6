"""What a worker on another machine has in hand of one scan: a scan folder of its own, as small as that.

A frame lies at a place of its own, 0, 1, 2 ..., which is free again when the network has taken it.
"""

import shutil
from itertools import compress, count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.files.arrays import read_array
from stream.record.probe import publish_probe
from stream.record.scan import Numbers
from stream.record.tuned_weights import STAGE as TUNED_STAGE
from stream.record.tuned_weights import version_path
from stream.remote.files import scan_as_told
from stream.remote.messages import Lease, SharedFile
from stream.stages.inference.worker import Inference, ScanPasses


class Bench:
    """Frames of one scan on their way through the network.

    Parameters
    ----------
    folder : Path
        Its own; what lay there before is gone.
    lease : Lease
        The first of this scan.
    inference : Inference

    Attributes
    ----------
    passes : ScanPasses
        Of frames by their places.

    Raises
    ------
    ValueError
        If the network can do nothing with frames of this kind.
    """

    def __init__(self, folder: Path, lease: Lease, inference: Inference) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._scan, self._name = scan_as_told(folder, lease), lease.scan
        self._frames = self._scan.column("frames", writable=True)
        self._is_taken: list[bool] = []  # by place
        self._published: set[str] = set()
        self.passes = ScanPasses(inference, self._scan)

    def take(self, n_frames: int) -> Numbers:
        """Returns places for so many frames, ascending: the lowest that are free."""
        self._is_taken += [False] * max(n_frames - self._is_taken.count(False), 0)
        free = compress(count(), [not is_taken for is_taken in self._is_taken])
        places = list(islice(free, n_frames))
        for place in places:
            self._is_taken[place] = True
        return np.array(places, np.int64)

    def store(self, places: Numbers, frames: NDArray[Any]) -> None:
        """Stores frames that came.

        Raises
        ------
        ValueError
            If they are not as the lease has announced them.
        """
        wanted = self._frames.dtype, (len(places), *self._frames.item_shape)
        if (frames.dtype, frames.shape) != wanted:
            raise ValueError(
                f"frames of {self._name} came as {frames.dtype} of shape {frames.shape}, wanted {wanted}"
            )
        self._frames.write(places, frames)

    def free(self, places: Numbers) -> None:
        """Lets go of frames."""
        for place in places.tolist():
            self._is_taken[place] = False

    def publish(self, file: SharedFile, path: Path) -> None:
        """Leaves what was found or tuned during the scan where inference looks for it, once."""
        if file.sha256 in self._published:
            return
        self._published.add(file.sha256)
        if file.role == "found_probe":
            publish_probe(self._scan, read_array(path))
        elif file.role == "tuned_weights":
            counters = self._scan.counters(TUNED_STAGE, writable=True)
            own = version_path(self._scan, counters["version"] + 1)
            own.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, own)
            counters["version"] += 1

    def close(self) -> None:
        """Leaves the scan; nothing of it stays."""
        self.passes.flush()
        self.passes.weights.close()
        self._scan.close()
        shutil.rmtree(self._scan.folder, ignore_errors=True)
