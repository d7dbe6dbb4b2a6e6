"""Scans as their writers leave them (what subscriber, positions and inference would store)."""

from pathlib import Path
from typing import Any

import numpy as np

from operators.engine.config import RefinerSnapshot
from operators.geometry import Bounds
from operators.optics.probe import zone_plate_probe
from operators.optics.trajectories import jittered_raster
from operators.patches import extract_patches
from stream.record.scan import Scan, ScanHeader, State
from stream.stages.config import GeometryConfig
from stream.stages.inputs import Optics
from stream.wire.messages import ImageFigures, ObjectUpdate

N_PIXELS = 16
DETECTOR_PLANE = GeometryConfig(
    energy_ev=8000.0, detector_distance_m=2.0, detector_pixel_m=1e-4, n_pixels=N_PIXELS
)
GEOMETRY = DETECTOR_PLANE.geometry()
FRAME_SHAPE = (N_PIXELS, N_PIXELS)
UPDATE = ObjectUpdate(
    tile_px=8,
    bounds=(-16, 0, 16, 40),
    figures=ImageFigures(
        scan="0000-siemens",
        run_id="r",
        version=3,
        object_pixel_m=2e-8,
        frames_seen=12,
        epoch=1.5,
        model="abc",
        config_hash="def",
        error=0.02,
        time_to_image_ms=(20.0, 80.0),
        counts={"expected": 625},
        is_final=True,
        note="lost 1 frame (7)",
    ),
)


def make_scan(scans: Path, name: str = "0000-series", *, reserve: int = 0, **fields: Any) -> Scan:
    """Begin a scan with these `fields` of its header, as the subscriber does."""
    own = {"frame_shape": FRAME_SHAPE, "frame_dtype": "<u2", "started_s": 0.0}
    header = ScanHeader(series_id=int(name[:4]), series_uid=name, **own | fields)
    return Scan.create(scans / name, header, reserve)


def record(scan: Scan, numbers: Any, frames: Any = None, *, received_s: float = 1.0) -> None:
    """Store frames as the subscriber does: value, byte, head."""
    numbers = np.atleast_1d(numbers)
    values = np.zeros((len(numbers), *FRAME_SHAPE), "<u2") if frames is None else frames
    scan.column("frames", writable=True).write(numbers, values)
    scan.column("exposed_s", writable=True).write(numbers, 0.0)
    scan.column("received_s", writable=True).write(numbers, received_s)
    scan.mark("subscriber", numbers, State.DONE)
    raise_head(scan, int(numbers.max()) + 1)


def lose(scan: Scan, numbers: Any, state: State = State.LOST) -> None:
    scan.mark("subscriber", numbers, state)
    raise_head(scan, int(np.max(numbers)) + 1)


def raise_head(scan: Scan, head: int) -> None:
    counters = scan.counters("subscriber", writable=True)
    counters["head"] = max(counters["head"], head)


def place(scan: Scan, numbers: Any, corners: Any) -> None:
    """Store positions as the position stage does."""
    scan.column("positions_m", writable=True).write(numbers, GEOMETRY.to_metres(np.asarray(corners, float)))
    scan.mark("positions", numbers, State.DONE)


def infer(scan: Scan, numbers: Any, patches: Any, sigma: float = 0.1) -> None:
    """Store patches as the inference stage does."""
    scan.column("patches", writable=True, shape=FRAME_SHAPE).write(numbers, patches)
    scan.column("sigma", writable=True, shape=FRAME_SHAPE).write(numbers, sigma)
    scan.mark("inference", numbers, State.DONE)


def close(scan: Scan, *writers: str) -> None:
    for writer in writers:
        scan.counters(writer, writable=True)["closed"] = 1


def states(scan: Scan, stage: str) -> np.ndarray:
    """Return the ledger of `stage` as another process would find it."""
    return Scan(scan.folder).states(stage)


def sample(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return a smooth object (row, col) complex64 that varies in amplitude and phase."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    waves = sum(
        rng.normal() * np.cos(rng.normal(0, 0.3) * y + rng.normal(0, 0.3) * x + rng.uniform(0, 6))
        for _ in range(6)
    )
    return ((1 - 0.1 * np.tanh(waves)) * np.exp(0.4j * waves)).astype(np.complex64)


class Sample:
    """A scanned sample: what each stage would find out about it, patch phases being arbitrary as always.

    Attributes
    ----------
    corners : (frame, 2) int64, absolute object pixels, some negative
    patches : (frame, y, x) complex64
    truth : (row, col) complex64, `truth[corner - origin]` is the first pixel of a window
    """

    def __init__(self, n_side: int = 6, step: float = 4.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.corners = np.round(jittered_raster(n_side, n_side, step, 1.0, rng)).astype(np.int64) - 10
        self.origin = self.corners.min(axis=0)
        self.truth = sample(tuple(np.ptp(self.corners, axis=0) + N_PIXELS), seed)
        phases = np.exp(1j * rng.uniform(-np.pi, np.pi, len(self.corners))).astype(np.complex64)
        patches = extract_patches(self.truth, self.corners - self.origin, N_PIXELS)
        self.patches = patches * phases[:, None, None]
        self.probe = 1e3 * zone_plate_probe(N_PIXELS, 5.0, 4.0)[None]
        self.illumination = (np.abs(self.probe) ** 2).sum(axis=0)

    def __len__(self) -> int:
        return len(self.corners)

    def optics(self, folder: Path) -> Optics:
        path = folder / "probe.npy"
        np.save(path, self.probe)
        return Optics(DETECTOR_PLANE, path)

    def fill(self, scan: Scan, numbers: Any, *stages: str) -> None:
        """Store these frames at `stages`, all three that the stitcher reads if none is named."""
        numbers = np.atleast_1d(numbers)
        for stage in stages or ("subscriber", "positions", "inference"):
            if stage == "subscriber":
                record(scan, numbers)
            elif stage == "positions":
                place(scan, numbers, self.corners[numbers])
            else:
                infer(scan, numbers, self.patches[numbers])


def snapshot_of(object_: np.ndarray, bounds: Bounds, **changes: Any) -> RefinerSnapshot:
    """Return what refinement would publish of `object_`: a thousand photons on every pixel."""
    values = {
        "object": object_,
        "bounds": bounds,
        "probe": np.ones((1, N_PIXELS, N_PIXELS), np.complex64),
        "illumination": np.full(bounds.shape, 1e3, np.float32),
        "n_frames": 10,
        "n_updates": 30,
        "error": 0.1,
        "error_history": (0.1,),
        "n_divergences": 0,
    }
    return RefinerSnapshot(**values | changes)
