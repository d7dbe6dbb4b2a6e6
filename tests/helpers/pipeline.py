"""The pipeline in its real processes with a beamline around it, both in the hands of a test.

Everything goes over the sockets of a beamline. While a test waits, for the pace of the detector or for
something in the ledger, the supervisor looks after its processes; nothing waits for the clock alone.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from launch.beamline.flown import HeardPublisher
from launch.config.file import load_config
from launch.offline.task import ReconstructOptions
from launch.results.cxi import read_result
from launch.results.reconstruction import Reconstruction
from launch.run.stages import resolve
from launch.run.supervisor import Supervisor
from operators.engine.config import RefinerConfig
from stream.detector.simulator import DetectorReplay, Faults, ReplayConfig
from stream.record.account import account
from stream.record.scan import Scan
from stream.wire.sockets import Endpoint
from tests.helpers.letter import ScannedSample
from tests.helpers.stream.documents import Documents, PositionRun

PATIENCE_S = 120.0
STAGES_WITH_A_LEDGER = ("positions", "refinement", "stitcher")
OFFLINE = ReconstructOptions(refiner=RefinerConfig(algorithm="epie", probe_step=0), scale_probe=False)
"""What makes offline of a recorded scan what `Pipeline` makes live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a scan came to: its columns, the recorder's figures, and the CXI file if a picture was made."""

    scan: Scan
    figures: dict[str, Any]
    result: Reconstruction | None

    def error(self, sample: ScannedSample) -> Any:
        """The error of the reconstruction against the truth."""
        assert self.result is not None, f"no result of {self.scan.name}: {self.figures['incomplete']}"
        return sample.error(self.result.object, self.result.bounds)

    def assert_accounted(self, *, recorded: int, lost: int = 0) -> None:
        """Expected = recorded + lost, in the ledger as in the figures, and nothing is pending anywhere."""
        names = ("frames_expected", "frames_recorded", "frames_lost", "frames_pending")
        assert [self.figures[name] for name in names] == [recorded + lost, recorded, lost, 0]
        for stage in STAGES_WITH_A_LEDGER:
            found = account(self.scan, stage)
            assert (found.expected, found.recorded, found.lost) == (recorded + lost, recorded, lost)
            assert (found.awaited, found.pending) == (0, 0)
            assert found.recorded == found.done + sum(found.dropped.values())

    def assert_recorded_as(self, sample: ScannedSample) -> None:
        """Every recorded frame holds the pixels, and every position the place, of its own number."""
        numbers = self.scan.done("subscriber")
        np.testing.assert_array_equal(self.scan.column("frames").read(numbers), sample.frames[numbers])
        placed = self.scan.done("positions")
        np.testing.assert_allclose(
            self.scan.column("positions_m").read(placed), sample.positions_m[placed], rtol=1e-12, atol=1e-18
        )


class Pipeline:
    """A running pipeline, its detector and its bluesky; a context manager.

    Parameters
    ----------
    folder : Path
        Where it saves.
    sample : ScannedSample
        Its geometry is known beforehand.
    overrides : str
        Settings, "section.key=value".
    probe : (mode, y, x) complex64, optional
        Known beforehand, its power trusted; by default that of the sample.
    format : str
        What its detector speaks, of those that send by ZeroMQ.
    """

    def __init__(
        self,
        folder: Path,
        sample: ScannedSample,
        *overrides: str,
        probe: np.ndarray | None = None,
        format: str = "dectris-v2",
    ) -> None:
        self.folder, self._format = folder, format
        self._overrides, self._sample = overrides, sample
        self._probe = sample.probe if probe is None else probe
        self._things = ExitStack()
        self.notices: list[str] = []
        self.on_turn: Callable[[], object] = lambda: None  # called again and again while the test waits

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as things:
            self.detector = things.enter_context(
                DetectorReplay(Endpoint(address="tcp://127.0.0.1:*", bind=True), format=self._format)
            )
            config = load_config(self._write_config(), overrides=self._overrides)
            self.supervisor = things.enter_context(Supervisor(resolve(config), on_notice=self._notice))
            self.supervisor.start()
            if address := self.supervisor.address("positions"):  # some sources have none
                self.publisher = HeardPublisher(address)
                things.callback(lambda: self.publisher.close())
            self._things = things.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._things.close()

    @property
    def live_address(self) -> str:
        """Where clients connect."""
        return self.supervisor.address("stitcher")

    def publish(self, documents: Documents) -> None:
        """Publishes documents in this order."""
        for name, document in documents:
            self.publisher(name, document)

    def reconnect_publisher(self) -> None:
        """Waits for a position stage that was started again: what is published before is lost."""
        self.publisher.close()
        self.publisher = HeardPublisher(self.supervisor.address("positions"))

    def play(self, sample: ScannedSample, series: str, *, rate_hz: float = 0.0, **faults: Any) -> int:
        """Sends one series; returns how many frames left."""
        return self.play_frames(sample.frames, series, len(sample), rate_hz=rate_hz, **faults)

    def play_frames(
        self, frames: Iterable[np.ndarray], series: str, n_frames: int, *, rate_hz: float = 0.0, **faults: Any
    ) -> int:
        """Sends these frames, each taken when its turn comes, as one series; returns how many left."""
        config = ReplayConfig(
            series_uid=series, series_id=sum(series.encode()), rate_hz=rate_hz, faults=Faults(**faults)
        )
        return self.detector.play(frames, config, n_frames, is_stopped=self.looks_after)

    def run(self, sample: ScannedSample, series: str, **faults: Any) -> Outcome:
        """Plays a scan whose positions come in good order, and returns its end."""
        self.publish(PositionRun(series, sample.positions_m).documents())
        self.play(sample, series, **faults)
        return self.outcome(series)

    def outcome(self, series: str) -> Outcome:
        """Waits until every stage is done with the series."""
        self.until(lambda: (scan := self.find(series)) is not None and self.supervisor.is_closed(scan))
        return self.result_of(self.scan(series))

    def result_of(self, scan: Scan) -> Outcome:
        """Reads what the recorder wrote."""
        stem = self.folder / "results" / scan.name
        cxi = stem.with_suffix(".cxi")
        return Outcome(
            scan=scan,
            figures=json.loads(stem.with_suffix(".json").read_text()),
            result=read_result(cxi) if cxi.exists() else None,
        )

    def find(self, series: str) -> Scan | None:
        """The scan of a series, None before it has begun."""
        return next((scan for scan in self.supervisor.scans() if scan.header.series_uid == series), None)

    def scan(self, series: str) -> Scan:
        """The scan of a series that has begun."""
        scan = self.find(series)
        assert scan is not None, f"no scan of series {series}"
        return scan

    def is_shown(self, series: str) -> bool:
        """Whether the live image is that of this series."""
        scan = self.find(series)
        return scan is not None and scan.count("stitcher", "version") > 0

    def recorded(self, series: str) -> int:
        """How many frames of a series are recorded by now."""
        scan = self.find(series)
        return 0 if scan is None else account(scan, "subscriber").recorded

    def until(self, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
        """Looks after the processes until `condition` holds."""
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen in {patience_s:g} s: {self.notices[-5:]}"
            self.supervisor.poll()
            self.on_turn()

    def looks_after(self) -> bool:
        """Looks after the processes before every message, as nobody else does while the detector plays."""
        self.supervisor.poll(0.0)
        self.on_turn()
        return False

    def _notice(self, stage: str, level: int, text: str) -> None:
        self.notices.append(f"{stage}: {text}")

    def _write_config(self) -> Path:
        np.save(self.folder / "known-probe.npy", self._probe)
        config = {
            "geometry": self._sample.geometry_settings,
            "detector": {"address": self.detector.address, "end_grace_s": 0.3, "format": self._format},
            "positions": {"address": "tcp://127.0.0.1:*", "unit": "um", "late_s": 0.5},
            "probe": {"source": "file", "path": "known-probe.npy", "scale": False},
            "refinement": {"algorithm": "epie", "probe_step": 0, "publish_s": 0.1},
            "live": {"address": "tcp://127.0.0.1:*", "tile_px": 16},
            "viewer": {"enabled": False},
            "results": {"product": True, "resolution": "never", "orientation": False},
            "save": str(self.folder),
        }
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return path


def in_pages(items: Iterable[Any], n: int) -> Iterator[list[Any]]:
    """Items in lists of `n`."""
    held = list(items)
    for start in range(0, len(held), n):
        yield held[start : start + n]
