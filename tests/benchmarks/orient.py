"""Whether `orient` finds how positions lie on the frames, and the beam, and how sure it is of what is noise.

The recorded Siemens star in all versions: the detector in eight orientations, positions with either sign of
y and x and with their axes exchanged, and each version's frames moved by up to 8 pixels. Simulated samples of
the demo's beam with known truth, in versions drawn at random: as they are, with 5 % of the positions wrong,
with 1,000 photons a frame. And frames that have nothing to tell.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from launch.beamline.simulation import SimulatedScan, Simulation, simulate_scan
from launch.offline.orient import OrientedScan, orient
from launch.offline.recorded import RecordedScan, open_recorded
from operators.arrays import Frames
from operators.optics.samples import FAMILIES, HELD_OUT_FAMILIES
from operators.orientation.turn import TURNS, Turn, turned_frames
from tests.benchmarks.figures import Benchmark, Figures
from tests.helpers.recorded_data import SHARED_DATA

SIEMENS = SHARED_DATA / "siemens" / "siemens.cxi"
N_FRAMES = 384
MOST_SHIFT_PX = 8
WRONG_SHARE, FEW_PHOTONS = 0.05, 1e3
TARGETS = {
    "recorded_right": (">=", 1.0),
    "recorded_sign_right": (">=", 1.0),
    "recorded_cpu_s_max": ("<=", 60.0),
    "recorded_centre_off_px_max": ("<=", 0.5),
    "simulated_right_of_certain": (">=", 1.0),
    "simulated_centre_off_px_max": ("<=", 0.5),
    "noise_confidence_max": ("<=", 0.5),
}
COLUMNS = ("right", "sign_right", "certain", "confidence", "centre_off_px", "cpu_s")


@dataclass(frozen=True, slots=True)
class Version:
    """A detector and a stage that are mounted another way, and a beam that meets the detector elsewhere."""

    detector: Turn
    recorded: Turn
    shift: tuple[int, int]

    @property
    def name(self) -> str:
        """Both turns, in signs: x for exchanged axes."""
        turns = (self.detector, self.recorded)
        signs = ["".join("+" if sign > 0 else "-" for sign in turn.signs) for turn in turns]
        marks = ["x" * turn.exchanged + sign for turn, sign in zip(turns, signs, strict=True)]
        return f"detector {marks[0]}, positions {marks[1]}"

    @property
    def wanted(self) -> Turn:
        """What positions need to fit the frames again."""
        return self.detector.after(self.recorded.inverse)

    def applied(self, scan: RecordedScan) -> RecordedScan:
        """Return the scan as it would have been recorded."""
        frames = _moved(turned_frames(scan.frames, self.detector), self.shift)
        mask = None if scan.mask is None else turned_frames(scan.mask[None], self.detector)[0]
        return replace(scan, frames=frames, mask=mask, positions_m=self.recorded(scan.positions_m))


def measure(folder: Path, families: tuple[str, ...] = (*FAMILIES, *HELD_OUT_FAMILIES)) -> Iterator[Figures]:
    """Yield a table for each kind of scan, and what came of it in sum."""
    rng = np.random.default_rng(0)
    versions = [Version(detector, recorded, _shift(rng)) for detector in TURNS for recorded in TURNS]
    if SIEMENS.is_file():
        yield from _recorded(versions)
    yield from _simulated(families, versions, rng)
    yield from _noise(rng)


def rehearse(folder: Path) -> Iterator[Figures]:
    """Yield the same of a few versions and samples."""
    rng = np.random.default_rng(0)
    versions = [Version(TURNS[index], TURNS[-index], _shift(rng)) for index in (0, 5)]
    if SIEMENS.is_file():
        yield from _recorded(versions)
    yield from _simulated(("glyphs",), versions, rng)
    yield from _noise(rng)


def _recorded(versions: list[Version]) -> Iterator[Figures]:
    with open_recorded(str(SIEMENS)) as opened:
        scan = replace(opened, frames=np.asarray(opened.frames[:N_FRAMES]), preprocess=None)
    scan = replace(scan, positions_m=scan.positions_m[:N_FRAMES], frame_numbers=scan.frame_numbers[:N_FRAMES])
    # nobody knows where the beam met this detector: shifts are judged against the frames as they are
    beam = np.array(orient(scan).centre) - [side // 2 for side in scan.frames.shape[1:]]
    rows = {version.name: _judged(scan, version, beam) for version in versions}
    yield {"recorded": rows, **_summed("recorded", rows)}


def _simulated(
    families: tuple[str, ...], versions: list[Version], rng: np.random.Generator
) -> Iterator[Figures]:
    rows: dict[str, Figures] = {}
    for index, family in enumerate(families):
        for kind, photons in (("", 4e5), (", 5 % of positions wrong", 4e5), (", 1,000 photons", FEW_PHOTONS)):
            simulation = Simulation(n_rows=16, family=family, seed=index, photons_per_frame=photons)
            scan = _as_recorded(simulate_scan(simulation))
            if "wrong" in kind:
                scan = replace(scan, positions_m=_some_wrong(scan.positions_m, rng))
            version = versions[int(rng.integers(len(versions)))]
            rows[family + kind] = _judged(scan, replace(version, shift=_shift(rng, 4)), np.zeros(2))
    yield {"simulated": rows, **_summed("simulated", rows)}


def _noise(rng: np.random.Generator) -> Iterator[Figures]:
    scan = _as_recorded(simulate_scan(Simulation(n_rows=16)))
    mean = np.asarray(scan.frames).mean(axis=0)
    shape = scan.frames.shape
    speckle = rng.gamma(2.0, 0.5, shape)
    drawn = {
        "photon noise of one pattern": [rng.poisson(mean, shape) for _ in range(4)],
        "other frames' positions": [scan.frames[rng.permutation(len(scan.frames))] for _ in range(4)],
        "speckle that no frame shares": [rng.poisson(mean * speckle) for _ in range(4)],
    }
    confidences = {
        f"{name} {index + 1}": {
            "confidence": orient(replace(scan, frames=frames.astype(np.uint16))).orientation.confidence
        }
        for name, several in drawn.items()
        for index, frames in enumerate(several)
    }
    worst = max(row["confidence"] for row in confidences.values())
    yield {"noise": confidences, "noise_confidence_max": worst}


def _judged(scan: RecordedScan, version: Version, beam: Any) -> Figures:
    """Return what came of one version; `beam` is where it is from the middle before anything is turned."""
    turned = version.applied(scan)
    began_s = time.process_time()
    found = orient(turned)
    cpu_s = time.process_time() - began_s
    orientation = found.orientation
    return {
        "right": orientation.turn.kind == version.wanted.kind,
        "sign_right": orientation.turn == version.wanted,
        "certain": orientation.is_certain,
        "confidence": orientation.confidence,
        "centre_off_px": _off_px(found, version, beam),
        "cpu_s": cpu_s,
    }


def _off_px(found: OrientedScan, version: Version, beam: Any) -> float:
    middle = [side // 2 for side in found.frame_shape]
    wanted = version.detector(np.asarray(beam, float)[None])[0] + middle + version.shift
    return float(np.abs(found.centre - wanted).max())


def _summed(name: str, rows: dict[str, Figures]) -> Figures:
    certain = [row for row in rows.values() if row["certain"]]
    return {
        f"{name}_versions": len(rows),
        f"{name}_right": float(np.mean([row["right"] for row in rows.values()])),
        f"{name}_certain": len(certain) / len(rows),
        f"{name}_right_of_certain": float(np.mean([row["right"] for row in certain] or [np.nan])),
        f"{name}_sign_right": float(np.mean([row["sign_right"] for row in rows.values()])),
        f"{name}_confidence_min": min(row["confidence"] for row in rows.values()),
        f"{name}_centre_off_px_max": max(row["centre_off_px"] for row in rows.values()),
        f"{name}_cpu_s_max": max(row["cpu_s"] for row in rows.values()),
    }


def _as_recorded(scan: SimulatedScan) -> RecordedScan:
    return RecordedScan(
        frames=scan.frames,
        frame_numbers=np.arange(len(scan.frames)),
        positions_m=scan.positions_m,
        geometry=scan.geometry,
        probe=None,
        mask=scan.mask,
        name="simulated",
    )


def _some_wrong(positions_m: Any, rng: np.random.Generator) -> Any:
    is_wrong = rng.random(len(positions_m)) < WRONG_SHARE
    anywhere = rng.uniform(positions_m.min(axis=0), positions_m.max(axis=0), positions_m.shape)
    return np.where(is_wrong[:, None], anywhere, positions_m)


def _shift(rng: np.random.Generator, most: int = MOST_SHIFT_PX) -> tuple[int, int]:
    down, right = (int(step) for step in rng.integers(-most, most + 1, 2))
    return down, right


def _moved(frames: Frames, shift: tuple[int, int]) -> Frames:
    """Return frames moved by whole pixels: what leaves them is lost, what comes in is dark."""
    moved = np.zeros_like(frames)
    into, out = [], []
    for step, n in zip(shift, frames.shape[1:], strict=True):
        into.append(slice(max(step, 0), n + min(step, 0)))
        out.append(slice(max(-step, 0), n - max(step, 0)))
    moved[:, *into] = frames[:, *out]
    return moved


BENCHMARK = Benchmark(
    measure=measure,
    rehearse=rehearse,
    targets=TARGETS,
    columns={"recorded": COLUMNS, "simulated": COLUMNS, "noise": ("confidence",)},
)
