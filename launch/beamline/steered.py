"""The simulated beamline of the steered demo: a RunEngine flies where the policy says, then a spiral.

Runs in its own process, started by the demo: `python -m launch.beamline.steered CONFIG.json`. It waits for
a line before each of the two scans.
"""

import asyncio
import queue
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from bluesky import RunEngine
from ophyd_async.core import AsyncStatus

from launch.beamline.flown import (
    GEOMETRY_KEYS,
    FlyingDetector,
    FlyingStage,
    HeardPublisher,
    simulated_fly_scan,
    wait_for_line,
)
from launch.beamline.steered_sample import SparseSample, Specimen, simulate_specimen
from launch.plans.adaptive import adaptive_fly_ptycho
from launch.plans.exposures import MaxDose
from operators.arrays import Frames, Positions, abs2
from stream.detector.simulator import DetectorReplay, ReplayConfig, new_series_uid
from stream.wire.sockets import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeredBeamlineConfig:
    """What the simulated beamline does.

    Attributes
    ----------
    detector : Endpoint
        Where frames are pushed.
    positions, policy : str
        Where the position stage is bound, and the policy.
    n_points, batch : int
        Exposures in all, and between two decisions.
    rate_hz : float
        Frames per second of a trajectory.
    max_dose : float, photons
        On any object pixel.
    sample : SparseSample
    """

    detector: Endpoint
    positions: str
    policy: str
    n_points: int
    batch: int
    rate_hz: float
    max_dose: float
    sample: SparseSample


class SteeredDetector:
    """A detector that goes on with one series, trajectory by trajectory.

    Parameters
    ----------
    replay : DetectorReplay
    series : ReplayConfig
    expose : callable
        Returns the frames of the trajectory that the stage will fly.
    rate_hz : float
    """

    name = "detector"
    parent = None

    def __init__(
        self, replay: DetectorReplay, series: ReplayConfig, expose: Callable[[], Frames], rate_hz: float
    ) -> None:
        self._expose, self._rate_hz = expose, rate_hz
        self._prepared: Frames = np.zeros((0, 1, 1), np.uint16)
        self._batches: queue.SimpleQueue[tuple[Frames, Future[None]] | None] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="detector")
        self._series = self._thread.submit(replay.play, self._frames(), series)

    def prepare(self, n_frames: int) -> AsyncStatus[None]:
        """Gets ready for the trajectory that the stage has got."""
        return AsyncStatus(self._get_ready(n_frames))

    def kickoff(self) -> AsyncStatus[None]:
        """Starts to send the frames of the trajectory."""
        self._sent: Future[None] = Future()
        self._batches.put((self._prepared, self._sent))
        return AsyncStatus(asyncio.sleep(0))

    def complete(self) -> AsyncStatus[None]:
        """Is done when they are sent."""
        return AsyncStatus(self._all_sent())

    def close(self) -> None:
        """Ends the series."""
        self._batches.put(None)
        self._thread.shutdown()
        self._series.result()

    async def _get_ready(self, n_frames: int) -> None:
        self._prepared = (await asyncio.to_thread(self._expose))[:n_frames]

    async def _all_sent(self) -> None:
        await asyncio.wrap_future(self._sent)

    def _frames(self) -> Iterator[Any]:
        while (batch := self._batches.get()) is not None:
            frames, sent = batch
            begin_s = time.monotonic()
            for index, frame in enumerate(frames, start=1):
                time.sleep(max(begin_s + index / self._rate_hz - time.monotonic(), 0.0))
                yield frame
            sent.set_result(None)


def run_steered_beamline(config: SteeredBeamlineConfig, wait_for_go: Callable[[], object]) -> None:
    """Runs the steered scan, then a Fermat spiral of as many positions over the same sample; blocks.

    Parameters
    ----------
    config : SteeredBeamlineConfig
    wait_for_go : callable
        Called before each scan.

    Raises
    ------
    PublisherNotHeardError
        If no position stage listens.
    """
    specimen = simulate_specimen(config.sample)
    planned = specimen.spiral(config.n_points)
    wait_for_go()
    engine, measured = RunEngine(), [0]
    engine.subscribe(lambda _, page: measured.append(len(page["seq_num"])), "event_page")
    with closing(HeardPublisher(config.positions)) as publisher, DetectorReplay(config.detector) as replay:
        engine.subscribe(publisher)
        _fly_steered(engine, replay, specimen, config, planned)
        wait_for_go()
        _fly_spiral(engine, replay, specimen, config, specimen.spiral(max(sum(measured), 2)))


def _fly_steered(
    engine: RunEngine,
    replay: DetectorReplay,
    specimen: Specimen,
    config: SteeredBeamlineConfig,
    planned: Positions,
) -> None:
    stage = FlyingStage(np.zeros((0, 2)), config.rate_hz)
    limit = MaxDose(
        photons_per_pixel=config.max_dose,
        illumination=abs2(specimen.probe).sum(axis=0),
        axes=specimen.axes,
    )
    series = _series(specimen, config, 1)
    detector = SteeredDetector(replay, series, lambda: specimen.expose(stage.trajectory_um), config.rate_hz)
    with closing(detector):
        plan = adaptive_fly_ptycho(
            [detector],
            stage,
            config.policy,
            fallback=planned,
            limits=specimen.limits,
            max_dose=limit,
            batch=config.batch,
            md=_metadata(specimen, series),
        )
        engine(plan)


def _fly_spiral(
    engine: RunEngine,
    replay: DetectorReplay,
    specimen: Specimen,
    config: SteeredBeamlineConfig,
    spiral_um: Positions,
) -> None:
    series, frames = _series(specimen, config, 2), specimen.expose(spiral_um)
    stage = FlyingStage(spiral_um * 1e-6, config.rate_hz)
    with closing(FlyingDetector(lambda: replay.play(frames, series))) as detector:
        engine(simulated_fly_scan(stage, detector, _metadata(specimen, series)))


def _series(specimen: Specimen, config: SteeredBeamlineConfig, number: int) -> ReplayConfig:
    geometry = {name: getattr(specimen.geometry, name) for name in GEOMETRY_KEYS}
    # The steered series is paced by its trajectories.
    rate_hz = 0.0 if number == 1 else config.rate_hz
    uid = new_series_uid(f"{'steered' if number == 1 else 'spiral'}-{config.sample.seed}")
    return ReplayConfig(series_id=number, series_uid=uid, rate_hz=rate_hz, **geometry)


def _metadata(specimen: Specimen, series: ReplayConfig) -> dict[str, Any]:
    geometry = {name: getattr(specimen.geometry, name) for name in GEOMETRY_KEYS}
    return {"detector_series_id": series.series_uid, "n_pixels": specimen.geometry.n_pixels, **geometry}


def main() -> None:
    """Runs the beamline that a JSON file describes; each scan starts at a line on stdin."""
    config = msgspec.json.decode(
        Path(sys.argv[1]).read_bytes(),
        type=SteeredBeamlineConfig,
        dec_hook=lambda kind, value: kind(value),
    )
    run_steered_beamline(config, wait_for_line)


if __name__ == "__main__":
    main()
