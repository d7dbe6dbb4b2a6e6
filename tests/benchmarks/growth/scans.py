"""Scans of any length on one field, as the stages would leave them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from operators.engine.config import RefinerSnapshot, RefinerState
from operators.geometry import Bounds
from operators.optics.probe import zone_plate_probe
from stream.record.scan import Numbers, Scan, ScanHeader, State
from stream.stages.config import GeometryConfig
from stream.stages.inputs import Optics

FIELD_PX = 256  # of scans whose turns are measured: the ground stays the same, only frames are added
BEFORE = ("subscriber", "positions", "inference")


class Frames(NamedTuple):
    """How large the frames are, and the optics that go with it."""

    n_pixels: int

    def geometry(self) -> GeometryConfig:
        """Return the geometry that all scans here share."""
        return GeometryConfig(
            energy_ev=8000.0, detector_distance_m=2.0, detector_pixel_m=1e-4, n_pixels=self.n_pixels
        )

    def probe(self) -> np.ndarray:
        """Return a probe of a million photons, (1, y, x) complex64."""
        n = self.n_pixels
        return 1e3 * zone_plate_probe(n, n * 0.3, n * 0.45)[None]

    def optics(self, folder: Path) -> Optics:
        """Return optics whose probe lies in `folder`."""
        path = folder / f"probe-{self.n_pixels}.npy"
        np.save(path, self.probe())
        return Optics(self.geometry(), path)


class GrowingScan:
    """A scan to which frames come, at every stage that is named.

    Parameters
    ----------
    scans : Path
        Folder of scans.
    frames : Frames
    places : callable
        (numbers) -> corners, (frame, 2) absolute object pixels.
    """

    def __init__(self, scans: Path, frames: Frames, places: Callable[[Numbers], np.ndarray]) -> None:
        n, index = frames.n_pixels, len(list(scans.glob("*/scan.json")))
        header = ScanHeader(
            series_id=index, series_uid="growing", frame_shape=(n, n), frame_dtype="<u2", started_s=0.0
        )
        self.scan = Scan.create(scans / f"{index:04d}-growing", header)
        self._geometry, self._places, self._shape = frames.geometry().geometry(), places, (n, n)
        self.n_frames = 0

    def add(self, n_frames: int, stages: tuple[str, ...] = BEFORE, *, with_frames: bool = True) -> Numbers:
        """Let `n_frames` more be done at `stages`, with frames that are all alike, or none."""
        scan, numbers = self.scan, np.arange(self.n_frames, self.n_frames + n_frames)
        for name, value in (("exposed_s", 1e-3 * numbers), ("received_s", 1e-3 * numbers + 1)):
            scan.column(name, writable=True).write(numbers, value)
        positions_m = self._geometry.to_metres(self._places(numbers).astype(float))
        scan.column("positions_m", writable=True).write(numbers, positions_m)
        for part in np.array_split(numbers, -(-n_frames // 1024)):
            if with_frames:
                scan.column("frames", writable=True).write(part, 100)
            scan.column("patches", writable=True, shape=self._shape).write(part, 1)
            scan.column("sigma", writable=True, shape=self._shape).write(part, 0.1)
        scan.column("model", writable=True).write(numbers, 7)
        for stage in stages:
            scan.mark(stage, numbers, State.DONE)
        self.n_frames += n_frames
        for writer in {"subscriber", "positions"} & {"subscriber", *stages}:
            scan.counters(writer, writable=True)["head"] = self.n_frames
        return numbers


def on_field(numbers: Numbers) -> np.ndarray:
    """Return corners spread over a field that stays the same, however many frames there are."""
    return np.random.default_rng(0).integers(0, FIELD_PX, (int(numbers.max()) + 1, 2))[numbers]


def state_on(bounds: Bounds, probe: np.ndarray, n_frames: int, n_updates: int) -> RefinerState:
    """Return what refinement knows beside an object on `bounds`."""
    return RefinerState(
        bounds=bounds,
        probe=probe,
        n_frames=n_frames,
        n_updates=n_updates,
        error=0.1,
        error_history=(0.1,),
        n_divergences=0,
    )


def snapshot_on(bounds: Bounds, probe: np.ndarray, n_frames: int, n_updates: int) -> RefinerSnapshot:
    """Return what refinement knows of a transparent object on `bounds`."""
    lit = np.full(bounds.shape, 1e3, np.float32)
    state = state_on(bounds, probe, n_frames, n_updates)
    return state.with_object(np.ones(bounds.shape, np.complex64), lit)
