"""The frames that engines are compared on, as a file that also a foreign environment can read."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

WAVELENGTH_M, DISTANCE_M, PITCH_M = 1e-10, 1.0, 5e-5  # any: engines see pixels


class EngineScan(NamedTuple):
    """truth (row, col) complex64; probe (y, x) complex64, the start; corners (frame, 2); patterns."""

    truth: np.ndarray
    probe: np.ndarray
    corners: np.ndarray
    patterns: np.ndarray

    @property
    def n_pixels(self) -> int:
        return self.probe.shape[-1]

    @property
    def pixel_m(self) -> float:
        return WAVELENGTH_M * DISTANCE_M / (self.n_pixels * PITCH_M)

    def save(self, path: Path) -> None:
        """Writes an npz file."""
        np.savez(path, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> "EngineScan":
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**file)
