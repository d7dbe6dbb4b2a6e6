"""A simulated beamline that writes files: `python -m launch.beamline.facility SCAN FOLDER`.

A real RunEngine of bluesky flies the scan past a detector and a PandA of ophyd-async. Documents say which
parts of which files are written; frames and positions lie in the files alone.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky import RunEngine
from bluesky.utils import MsgGenerator
from numpy.typing import NDArray
from ophyd_async.core import DetectorTrigger, StandardDetector, TriggerInfo, init_devices

from launch.beamline.flown import HeardPublisher
from launch.beamline.panda import SimulatedPanda
from launch.beamline.writing_detector import WritingDetector
from launch.offline.recorded import open_recorded
from operators.arrays import Frames, Positions
from stream.detector.simulator import new_series_uid
from stream.wire import addresses

FLUSH_S = 0.1  # between two parts that are written and announced

Publish = Callable[[str, dict[str, Any]], object]


def captures_of(positions_m: Positions, spread_um: Sequence[float]) -> NDArray[np.float64]:
    """Returns what a PandA captures, (capture, 2) float64, micrometres: `spread_um` about each position."""
    spread = np.asarray(spread_um, np.float64)[:, None]
    return (positions_m[:, None] * 1e6 + spread).reshape(-1, 2)


def fly(devices: dict[StandardDetector, int], n_events: int, series: str) -> MsgGenerator[None]:
    """Flies once past the devices, as a beamline's plan has it.

    Parameters
    ----------
    devices : mapping of device to int
        How often each is triggered for a frame.
    n_events : int
        Frames.
    series : str
        The detector's name of the series.
    """

    @bpp.stage_decorator(list(devices))
    @bpp.run_decorator(md={"detector_series_id": series})
    def inner() -> MsgGenerator[None]:
        for device, n_captures in devices.items():
            info = TriggerInfo(
                number_of_events=n_events,
                trigger=DetectorTrigger.EXTERNAL_LEVEL,
                collections_per_event=n_captures,
            )
            yield from bps.prepare(device, info, wait=True)
        yield from bps.declare_stream(*devices, name="primary", collect=True)
        yield from bps.kickoff_all(*devices, wait=True)
        yield from bps.collect_while_completing(
            list(devices), list(devices), flush_period=FLUSH_S, stream_name="primary"
        )

    return (yield from inner())


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """What is flown.

    Attributes
    ----------
    frames : (frame, row, col) unsigned integer
    positions_m : (frame, 2) float64, metres
        Probe on the sample, (y, x).
    name : str
        Of the detector's file, without its end.
    rate_hz : float
        Frames per second.
    spread_um : (capture,) float
        Where the stage is during an exposure, about the position: as many captures of the PandA.
    """

    frames: Frames
    positions_m: Positions
    name: str
    rate_hz: float = 100.0
    spread_um: tuple[float, ...] = (-0.002, 0.0, 0.002)


def run_facility(flight: Flight, folder: Path, publish: Publish, engine: RunEngine | None = None) -> Path:
    """Flies a scan into files below `folder`; blocks, and returns the detector's file.

    Parameters
    ----------
    flight : Flight
    folder : Path
        Frames go to `detector/NAME.h5`, positions to a file in `panda`.
    publish : callable
        Gets name and content of each document.
    engine : RunEngine, optional
        One that is there; else one is made, which wants the main thread.
    """
    folder = folder.absolute()
    path, panda_folder = folder / "detector" / f"{flight.name}.h5", folder / "panda"
    for parent in (path.parent, panda_folder):
        parent.mkdir(parents=True, exist_ok=True)
    captures = captures_of(flight.positions_m, flight.spread_um)
    n_captures = len(flight.spread_um)
    at_once = max(round(flight.rate_hz * FLUSH_S), 1)
    engine = engine or RunEngine()
    with init_devices():
        detector = WritingDetector(path, flight.frames, rate_hz=flight.rate_hz, n_at_once=at_once)
        panda = SimulatedPanda(
            panda_folder,
            captures,
            period_s=1 / (n_captures * flight.rate_hz),
            n_at_once=n_captures * at_once,
        )
    token = engine.subscribe(publish)
    try:
        engine(fly({detector: 1, panda: n_captures}, len(flight.frames), flight.name))
    finally:
        engine.unsubscribe(token)
    return path


def main(arguments: list[str] | None = None) -> None:
    """Flies the scan in a file once."""
    parser = argparse.ArgumentParser(prog="python -m launch.beamline.facility", description=__doc__)
    parser.add_argument("scan", help="a recorded scan, as `ptychostream replay` takes it")
    parser.add_argument("folder", type=Path, help="where detector and PandA write")
    parser.add_argument("--rate", type=float, default=100.0, help="frames per second")
    parser.add_argument("--positions", default=addresses.POSITIONS, help="where documents go")
    options = parser.parse_args(arguments)
    with open_recorded(options.scan) as scan:
        is_known = np.isfinite(scan.positions_m).all(axis=1)
        flight = Flight(
            frames=np.asarray(scan.frames[np.flatnonzero(is_known)]),
            positions_m=scan.positions_m[is_known],
            name=new_series_uid(scan.name),
            rate_hz=options.rate,
        )
    publisher = HeardPublisher(options.positions)
    try:
        path = run_facility(flight, options.folder, publisher)
    finally:
        publisher.close()
    print(f"{len(flight.frames)} frames lie in {path}, their positions in {options.folder / 'panda'}")


if __name__ == "__main__":
    main(sys.argv[1:])
