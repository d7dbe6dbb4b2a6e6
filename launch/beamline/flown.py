"""The simulated beamline: a real bluesky RunEngine that flies a simulated scan past a simulated detector.

Runs in its own process, started by the demo: `python -m launch.beamline.flown CONFIG.json [--wait]`.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import msgspec
import numpy as np
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher
from bluesky.utils import MsgGenerator
from ophyd_async.core import AsyncStatus

from launch.beamline.simulation import SimulatedScan, Simulation, simulate_scan
from operators.arrays import Positions
from stream.detector.simulator import DetectorReplay, ReplayConfig, new_series_uid
from stream.documents.codec import to_msgpack
from stream.wire.sockets import Endpoint

GEOMETRY_KEYS = ("energy_ev", "detector_distance_m", "detector_pixel_m")
FLUSH_PERIOD_S = 0.05
CONNECT_TIMEOUT_S = 30.0
_XPUB = 9  # ZeroMQ's PUB that hears of its subscribers; the same on the wire

Clock = Callable[[], float]


class PublisherNotHeardError(TimeoutError):
    """Nobody listens where the documents should go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamlineConfig:
    """What the simulated beamline does.

    Attributes
    ----------
    detector : Endpoint
        Where frames are pushed; this side connects unless it says `bind`.
    positions : str
        Where the position stage is bound.
    rate_hz : float
        Frames per second.
    n_series : int
        Scans, one after the other; each has a new sample.
    encoder_noise_m : float
        Standard deviation of the reported positions, metres.
    compression : str
        Of the frames on the wire.
    simulation : Simulation
        The first scan.
    """

    detector: Endpoint
    positions: str
    rate_hz: float = 100.0
    n_series: int = 1
    encoder_noise_m: float = 1e-9
    compression: Literal["bslz4", "lz4", ""] = "bslz4"
    simulation: Simulation = field(default_factory=Simulation)


class FlyingStage:
    """A stage that flies along a trajectory and hands out its encoder readings as it goes.

    Parameters
    ----------
    positions_m : (frame, 2) float64, metres
        Where it will be at each trigger of the detector, (y, x).
    rate_hz : float
        Triggers per second.
    clock : callable
        Seconds; the readings of a trigger exist once its time has come.
    """

    name = "stage"
    parent = None
    fields = ("stage-y", "stage-x")
    hints = {"fields": list(fields)}  # noqa: RUF012

    def __init__(self, positions_m: Positions, rate_hz: float, clock: Clock = time.monotonic) -> None:
        self._readings_um = positions_m * 1e6
        self._rate_hz, self._clock = rate_hz, clock
        self._started_at = float("inf")
        self._n_collected = 0

    @property
    def trajectory_um(self) -> Positions:
        """Where it will be at each trigger, (frame, 2) float64, micrometres."""
        return self._readings_um

    def prepare(self, trajectory_um: Positions) -> AsyncStatus[None]:
        """Gets ready to fly another trajectory, (frame, 2) float64, micrometres."""
        self._readings_um = trajectory_um
        return AsyncStatus(asyncio.sleep(0))

    def kickoff(self) -> AsyncStatus[None]:
        """Starts to move."""
        self._started_at, self._n_collected = self._clock(), 0
        return AsyncStatus(asyncio.sleep(0))

    def complete(self) -> AsyncStatus[None]:
        """Is done when the last trigger has come."""
        end = self._started_at + len(self._readings_um) / self._rate_hz
        return AsyncStatus(asyncio.sleep(max(end - self._clock(), 0.0)))

    def describe_collect(self) -> dict[str, Any]:
        """Returns the two axes, in micrometres."""
        return {
            name: {"source": f"sim://{name}", "dtype": "number", "shape": [], "units": "um"}
            for name in self.fields
        }

    def collect_pages(self) -> Iterator[dict[str, Any]]:
        """Yields one page of the readings since the last time."""
        n_passed = int(max(self._clock() - self._started_at, 0.0) * self._rate_hz)
        stop = min(n_passed, len(self._readings_um))
        rows = slice(self._n_collected, stop)
        if rows.start == rows.stop:
            return
        self._n_collected = stop
        stamps = (time.time() - (stop - np.arange(rows.start, stop)) / self._rate_hz).tolist()
        yield {
            "time": stamps,
            "data": dict(zip(self.fields, self._readings_um[rows].T.tolist(), strict=True)),
            "timestamps": dict.fromkeys(self.fields, stamps),
        }


class FlyingDetector:
    """A detector that sends its frames by itself once it is kicked off; bluesky only waits for it.

    Parameters
    ----------
    play : callable
        Sends the whole series and returns when it is sent.
    """

    name = "detector"
    parent = None

    def __init__(self, play: Callable[[], object]) -> None:
        self._play = play
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="detector")

    def kickoff(self) -> AsyncStatus[None]:
        """Starts to send."""
        self._playing = self._thread.submit(self._play)
        return AsyncStatus(asyncio.sleep(0))

    def complete(self) -> AsyncStatus[object]:
        """Is done when the series is sent."""
        return AsyncStatus(self._sent())

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()

    async def _sent(self) -> object:
        return await asyncio.wrap_future(self._playing)


def simulated_fly_scan(
    stage: FlyingStage,
    detector: FlyingDetector,
    metadata: dict[str, Any],
    flush_period_s: float = FLUSH_PERIOD_S,
) -> MsgGenerator[None]:
    """Flies `stage` along its trajectory while `detector` sends, and collects positions as they come.

    `flush_period_s` is the time between two collections.
    """
    names = {"plan_name": "simulated_fly_scan", "motors": list(stage.fields), "detectors": [detector.name]}
    dimensions = [([name], "primary") for name in stage.fields]

    @bpp.run_decorator(md={**names, "hints": {"dimensions": dimensions}, **metadata})
    def fly() -> MsgGenerator[None]:
        yield from bps.declare_stream(stage, name="primary", collect=True)
        yield from bps.kickoff_all(stage, detector, wait=True)
        yield from bps.collect_while_completing(
            [stage, detector], [stage], flush_period=flush_period_s, stream_name="primary"
        )

    yield from fly()


def run_beamline(config: BeamlineConfig, wait_for_go: Callable[[], object] = lambda: None) -> None:
    """Runs every scan; blocks.

    Parameters
    ----------
    config : BeamlineConfig
    wait_for_go : callable
        Called before each scan, when all of them are prepared.

    Raises
    ------
    PublisherNotHeardError
        If no position stage listens.
    """
    seed = config.simulation.seed
    scans = [simulate_scan(replace(config.simulation, seed=seed + index)) for index in range(config.n_series)]
    wait_for_go()
    publisher = HeardPublisher(config.positions)
    engine = RunEngine()
    engine.subscribe(publisher)
    try:
        with DetectorReplay(config.detector) as detector:
            for index, scan in enumerate(scans):
                if index:
                    wait_for_go()
                _fly(engine, detector, scan, config, series_id=index + 1)
    finally:
        publisher.close()


def _fly(
    engine: RunEngine, replay: DetectorReplay, scan: SimulatedScan, config: BeamlineConfig, series_id: int
) -> None:
    geometry = {name: getattr(scan.geometry, name) for name in GEOMETRY_KEYS}
    series = ReplayConfig(
        series_id=series_id,
        series_uid=new_series_uid(f"simulated-{config.simulation.seed}-{series_id}"),
        rate_hz=config.rate_hz,
        compression=config.compression,
        **geometry,
    )
    noise_m = np.random.default_rng(series_id).normal(0.0, config.encoder_noise_m, scan.positions_m.shape)
    stage = FlyingStage(scan.positions_m + noise_m, config.rate_hz)
    detector = FlyingDetector(lambda: replay.play(scan.frames, series))
    metadata = {
        "detector_series_id": series.series_uid,
        "num_points": len(scan.frames),
        "n_pixels": scan.geometry.n_pixels,
        **geometry,
    }
    try:
        engine(simulated_fly_scan(stage, detector, metadata))
    finally:
        detector.close()


class HeardPublisher(Publisher):
    """Bluesky's publisher once somebody listens: what it publishes before that is lost.

    Parameters
    ----------
    address : str
        Where the listener is bound.
    timeout_s : float
        How long to wait for it.
    insecure : bool
        Allows an address on another machine: what is published is not encrypted.

    Raises
    ------
    EndpointError
        If the address is malformed, or on another machine without `insecure`.
    PublisherNotHeardError
        If nobody subscribes in that time.
    """

    def __init__(self, address: str, timeout_s: float = CONNECT_TIMEOUT_S, *, insecure: bool = False) -> None:
        Endpoint(address=address, insecure=insecure).check()
        super().__init__(address, serializer=to_msgpack)
        self._socket.close()
        self._socket = self._context.socket(_XPUB)
        self._socket.connect(self.address)
        if not self._socket.poll(int(timeout_s * 1e3)):
            self.close()
            raise PublisherNotHeardError(
                f"no position stage listens at {address}: nobody subscribed in {timeout_s:g} s"
            )


def main() -> None:
    """Runs the beamline that a JSON file describes; with `--wait` each scan starts at a line on stdin."""
    path, *options = sys.argv[1:]
    config = msgspec.json.decode(
        Path(path).read_bytes(), type=BeamlineConfig, dec_hook=lambda kind, value: kind(value)
    )
    run_beamline(config, wait_for_go=wait_for_line if "--wait" in options else lambda: None)


def wait_for_line() -> None:
    """Waits for whoever started this process to say go."""
    if not sys.stdin.readline():
        sys.exit("the simulated beamline was not told to go")


if __name__ == "__main__":
    main()
