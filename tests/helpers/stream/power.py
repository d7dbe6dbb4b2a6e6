"""A power cut while a scan is recorded: of memory, any page may be on the disk and any may not."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from stream.durability import keeper
from stream.durability.keeper import Keeper
from stream.durability.mend import PAGE_BYTES, mend_scans
from stream.record.scan import Scan
from tests.helpers.stream.scans import make_scan, place, record


class Disk:
    """What of a folder is on the disk: what was brought there, and of the other pages either state."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self._folder, self._rng, self._synced = folder, rng, dict[Path, bytes]()

    def sync(self, path: Path) -> None:
        """Bring a file to the disk."""
        if path.is_file():
            self._synced[path] = path.read_bytes()

    def cut(self) -> None:
        """The power is off."""
        for path in [path for path in self._folder.rglob("*") if path.is_file() and path.suffix != ".json"]:
            now = np.frombuffer(path.read_bytes(), np.uint8)
            before = np.frombuffer(self._synced.get(path, b"")[: len(now)].ljust(len(now), b"\0"), np.uint8)
            is_lost = np.repeat(self._rng.random(-(-len(now) // PAGE_BYTES)) < 0.5, PAGE_BYTES)[: len(now)]
            path.write_bytes(np.where(is_lost, before, now).tobytes())


class After(NamedTuple):
    """What is left after a power cut.

    Attributes
    ----------
    scan : Scan
    said : str
        What a run says that mends it.
    n_kept, n_kept_lost : int
        Frames that were on the disk, and of these the ones that do not count any more.
    n_wrong : int
        Frames that count and have not their own pixels.
    """

    scan: Scan
    said: str
    n_kept: int
    n_kept_lost: int
    n_wrong: int


def pixels_of(numbers: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Frames that say in every pixel which they are, none of it zero."""
    return np.broadcast_to(numbers[:, None, None] + 1, (len(numbers), *shape)).astype("<u2")


def cut_the_power(folder: Path, rng: np.random.Generator, shape: tuple[int, int] = (48, 64)) -> After:
    """Record some frames, now and then bring them to the disk, cut the power, and mend what is left."""
    scans = folder / "scans"
    scans.mkdir(parents=True)
    disk = Disk(scans, rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "sync", disk.sync)
        patch.setattr("stream.record.columns.SEGMENT_BYTES", 1)  # 64 frames in a file
        scan, keeping, n_kept, n = make_scan(scans, "0000-cut", frame_shape=shape), Keeper(scans), 0, 0
        for _ in range(rng.integers(1, 6)):
            numbers = np.arange(n, n := n + int(rng.integers(1, 150)))
            record(scan, numbers, pixels_of(numbers, shape))
            if rng.random() < 0.6:
                keeping.look()
                disk.sync(scan.folder / keeper.FILE_NAME)
                n_kept = n
        place(scan, np.arange(n), np.zeros((n, 2)))
        scan.close()
        disk.cut()
        (said,) = mend_scans(scans, lambda scan: True)
    found = Scan(scan.folder)
    done = found.done("subscriber")
    is_own = (found.column("frames").read(done) == pixels_of(done, shape)).all(axis=(1, 2))
    n_kept_lost = n_kept - int(np.count_nonzero(done < n_kept))
    return After(found, said, n_kept, n_kept_lost, int(np.count_nonzero(~is_own)))
