"""The columns of inference, and how a frame in them is done with; whoever infers, one process writes them."""

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Patches
from stream.record.handover import NETWORK
from stream.record.scan import Numbers, Scan, State


class PatchColumns:
    """Where patches and sigma of one scan go.

    Parameters
    ----------
    scan : Scan
    n_pixels : int
        Side of a patch.

    Raises
    ------
    ValueError
        If an earlier process has left patches of another size.
    """

    def __init__(self, scan: Scan, n_pixels: int) -> None:
        self._scan = scan
        self._patches = scan.column("patches", writable=True, shape=(n_pixels, n_pixels))
        self._sigma = scan.column("sigma", writable=True, shape=(n_pixels, n_pixels))
        self._models = scan.column("model", writable=True)
        self._inferred_s = scan.column("inferred_s", writable=True)

    def reserve(self, numbers: Numbers) -> None:
        """Makes room for these frames, so that threads which write find it and need not make it."""
        for column in (self._patches, self._sigma):
            column.reserve(int(numbers.max()) + 1)

    def write(self, numbers: Numbers, patches: Patches, sigma: NDArray[np.float16]) -> None:
        """Stores patches (frame, y, x) complex64 and sigma (frame, y, x) of frames that have room."""
        self._patches.write(numbers, patches)
        self._sigma.write(numbers, sigma)

    def settle(
        self, numbers: Numbers, models: NDArray[np.uint64], is_good: NDArray[np.bool_], now: float
    ) -> None:
        """Marks frames whose patches are stored DONE, or BAD where they are not good, (frame,) bool.

        Parameters
        ----------
        numbers : (frame,) int64
        models : (frame,) uint64
            Which weights made the patch.
        is_good : (frame,) bool
        now : float
            Monotonic seconds.
        """
        self._models.write(numbers, models)
        self._inferred_s.write(numbers, now)
        self._scan.mark(NETWORK, numbers[is_good], State.DONE)
        self._scan.mark(NETWORK, numbers[~is_good], State.BAD)
