"""One scan through the pipeline's own processes, the detector in another one, and a client that follows.

Whatever happens there are figures: of a run that fails they say how far every stage came, why the run ended,
and what the stages that died had last logged.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from launch.config.config import Config
from launch.run.processes import RunFailedError
from launch.run.stages import resolve
from launch.run.supervisor import Supervisor
from stream.record.account import account, frame_counts, has_begun, percentiles_ms
from stream.record.scan import Scan
from stream.record.snapshot import read_snapshot
from tests.benchmarks.figures import Figures
from tests.benchmarks.kilohertz.beamline import READY, BeamlineSettings, Sent
from tests.benchmarks.kilohertz.client import Followed
from tests.benchmarks.kilohertz.scan import (
    DETECTOR_DISTANCE_M,
    DETECTOR_PIXEL_M,
    ENERGY_EV,
    PHOTONS,
    RepeatingScan,
)

LOG_LINES = 8
START_S = 75.0  # until every stage is ready
LOOK_S = 0.2
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

OnTurn = Callable[[Supervisor, list[Scan]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """What is run.

    Attributes
    ----------
    scan : RepeatingScan
    rate_hz : float
        Frames per second.
    weights : Path
        Of the network.
    settings : dict
        By section of the configuration, beside what the scan demands.
    positions : {"documents", "file"}
        Whether bluesky brings them while the scan runs; "file" works without bluesky.
    builders : dict
        "module:function" of stages that stand in for the pipeline's own, by name.
    patience_s : float
        How long the pipeline may take after the last frame until its result is written.
    """

    scan: RepeatingScan
    rate_hz: float
    weights: Path
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    positions: Literal["documents", "file"] = "documents"
    builders: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = 60.0


class Watch:
    """What is seen of the processes while they run: their processor time, and how far refinement is."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._look_at = 0.0
        self._cpu_s_before = self._cpu_s()
        self._refined: list[tuple[float, int]] = []  # when, and how many updates: the first and the last
        self.cpu_s: dict[str, float] = {}

    def look(self, scans: list[Scan], n_frames: int) -> None:
        """Take note, now and then; processor time until all of `n_frames` are in the image."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        if not scans or account(scans[0], "stitcher").done < n_frames:
            before = self._cpu_s_before
            self.cpu_s = {name: value - before.get(name, 0.0) for name, value in self._cpu_s().items()}
        progress = self._supervisor.progress.get("refinement")
        if progress is not None and (updates := progress.counts.get("updates", 0)):
            self._refined = [*self._refined[:1], (now, updates)]

    @property
    def updates_per_s(self) -> float:
        """Updates of refinement a second, between the first and the last report."""
        if len(self._refined) < 2:
            return 0.0
        (began, before), (ended, after) = self._refined
        return (after - before) / (ended - began)

    def _cpu_s(self) -> dict[str, float]:
        pids = {spec.name: self._supervisor.pid(spec.name) for spec in self._supervisor.run.stages}
        return {name: process_cpu_s(pid) for name, pid in pids.items() if pid} | {
            "supervisor": process_cpu_s(os.getpid())
        }


def process_cpu_s(pid: int) -> float:
    """Returns the processor time of a process so far, seconds; 0 where it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / _TICKS_PER_S


def run_live(run: LiveRun, folder: Path, on_turn: OnTurn = lambda supervisor, scans: None) -> Figures:
    """Returns the figures; `why` is "" or says why the run did not come to its end.

    Parameters
    ----------
    run : LiveRun
    folder : Path
        For what it writes.
    on_turn : callable
        Gets the supervisor and the scans many times a second, while the scan runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    resolved = resolve(_config(run, folder))
    stages = tuple(
        spec.model_copy(update={"builder": run.builders.get(spec.name, spec.builder)})
        for spec in resolved.stages
    )
    resolved = resolved.model_copy(update={"stages": stages})
    notices: list[tuple[str, str]] = []
    why, watch = "", None
    with Supervisor(resolved, on_notice=lambda stage, _, text: notices.append((stage, text))) as supervisor:
        try:
            supervisor.start(START_S)
            watch = Watch(supervisor)
            _play(run, folder, supervisor, watch, on_turn)
        except (RunFailedError, TimeoutError) as error:
            why = str(error)
        scans = supervisor.scans()
        figures: Figures = {"why": why, "offered_hz": run.rate_hz, "restarts": supervisor.n_restarts}
        figures |= _died(notices, resolved.logs)
        if scans:
            figures |= _figures(run, folder, scans[0])
        if watch is not None:
            figures |= _costs(watch, folder, max(figures.get("frames_recorded", 0), 1))
        supervisor.stop(drain=False)
    return figures


def _config(run: LiveRun, folder: Path) -> Config:
    scan = run.scan
    positions: dict[str, Any] = {"unit": "m", "address": "tcp://127.0.0.1:*"}
    if run.positions == "documents":
        positions["unit"] = "um"
    else:
        np.save(folder / "positions.npy", scan.positions_m())
        positions |= {"source": "file", "path": folder / "positions.npy", "field_m": 1.0}
    settings: dict[str, Any] = {
        "geometry": {
            "energy_ev": ENERGY_EV,
            "detector_distance_m": DETECTOR_DISTANCE_M,
            "detector_pixel_m": DETECTOR_PIXEL_M,
            "n_pixels": scan.n_pixels,
        },
        "detector": {"address": "tcp://127.0.0.1:*", "bind": True},
        "positions": positions,
        "probe": {
            "source": "zone_plate",
            "pupil_radius_px": scan.pupil_radius_px,
            "disc_radius_px": scan.disc_radius_px,
            "photons": PHOTONS,
            "scale": False,
        },
        "network": {"weights": run.weights},
        "live": {"address": "tcp://127.0.0.1:*"},
        "viewer": {"port": 0},
        "results": {"resolution": "never"},
        "save": folder / "recordings",
    }
    return Config.model_validate(
        settings | {name: {**settings.get(name, {}), **section} for name, section in run.settings.items()}
    )


def _play(run: LiveRun, folder: Path, supervisor: Supervisor, watch: Watch, on_turn: OnTurn) -> None:
    """Sends the scan and looks after the pipeline until it is done with it.

    Raises
    ------
    RunFailedError
        If the beamline or a stage cannot go on.
    TimeoutError
        If the result is not written in time.
    """
    settings = BeamlineSettings(
        detector=supervisor.address("subscriber"),
        positions=supervisor.address("positions") if run.positions == "documents" else "",
        rate_hz=run.rate_hz,
        scan=run.scan,
        report=str(folder / "sent.json"),
    )
    (folder / "beamline.json").write_bytes(msgspec.json.encode(settings))
    address = supervisor.address("stitcher")
    with (
        _process(folder, "client", address, str(folder / "followed.json")),
        _process(folder, "beamline", str(folder / "beamline.json")) as beamline,
    ):
        deadline = time.monotonic() + run.patience_s
        while READY not in (folder / "beamline.log").read_text():
            _check(beamline, folder, deadline, f"not ready after {run.patience_s:g} s")
            supervisor.poll()
        assert beamline.stdin is not None
        beamline.stdin.write(b"go\n")
        beamline.stdin.flush()
        patience_s = run.scan.n_frames / run.rate_hz + run.patience_s
        deadline = time.monotonic() + patience_s
        while not (scans := supervisor.scans()) or not supervisor.is_closed(scans[0]):
            _check(beamline, folder, deadline, f"the scan is not done {patience_s:g} s after its first frame")
            watch.look(scans, run.scan.n_frames)
            on_turn(supervisor, scans)
            supervisor.poll()


def _check(beamline: subprocess.Popen[bytes], folder: Path, deadline: float, late: str) -> None:
    if beamline.poll():
        words = "\n".join(_last_lines(folder / "beamline.log"))
        raise RunFailedError(f"the beamline ended with {beamline.returncode}:\n{words}")
    if time.monotonic() > deadline:
        raise TimeoutError(late)


@contextmanager
def _process(folder: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"tests.benchmarks.kilohertz.{name}", *arguments]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0, env=_one_thread_each()
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _one_thread_each() -> dict[str, str]:
    return os.environ | {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}


def _figures(run: LiveRun, folder: Path, scan: Scan) -> Figures:
    """Returns what the scan's columns tell."""
    counts = frame_counts(scan)
    figures: Figures = {f"frames_{name}": count for name, count in counts.items()}
    figures["frames_lost"] += run.scan.n_frames - counts["expected"]  # what was never announced
    numbers = np.arange(len(scan.states("subscriber")))
    received_s = scan.column("received_s").read(numbers)
    if (folder / "sent.json").exists():
        sent = msgspec.json.decode((folder / "sent.json").read_bytes(), type=Sent)
        figures["sent_hz"] = sent.n_frames / (sent.end_s - sent.begin_s)
        figures["cpu_ms_per_1000_detector"] = sent.cpu_s / sent.n_frames * 1e6
        photon_s = sent.begin_s + (numbers + 1) / run.rate_hz
        last_s = sent.begin_s + run.scan.n_frames / run.rate_hz
        figures |= _percentiles("receive_ms", received_s, photon_s)
        for name, column in (("time_to_image_ms", "mosaicked_s"), ("time_to_refined_ms", "refined_s")):
            if scan.has(column):
                at_s = scan.column(column).read(numbers)
                figures |= _percentiles(name, at_s, photon_s)
                if column == "mosaicked_s":
                    is_late = (at_s == 0) | (at_s > last_s + 1)
                    figures["pending_after_1s"] = int(is_late.sum()) + run.scan.n_frames - len(numbers)
    if scan.has("inferred_s"):
        figures["patterns_per_s"] = _rate(scan.column("inferred_s").read(numbers))
    snapshot = read_snapshot(scan.folder)
    if snapshot is not None:
        figures |= {"epochs": snapshot.epoch, "refined_error": snapshot.error}
    for stage in ("positions", "inference", "refinement", "stitcher"):
        if has_begun(scan, stage):
            figures[f"pending_{stage}"] = account(scan, stage).pending
    return figures


def _percentiles(name: str, at_s: np.ndarray, photon_s: np.ndarray) -> Figures:
    times = percentiles_ms((at_s - photon_s)[at_s > 0])
    return dict(zip((f"{name}_p50", f"{name}_p99"), times, strict=True)) if times else {}


def _rate(at_s: np.ndarray) -> float:
    """Returns events per second between the first and the last."""
    at_s = at_s[at_s > 0]
    span_s = float(np.ptp(at_s)) if at_s.size else 0.0
    return len(at_s) / span_s if span_s else 0.0


def _costs(watch: Watch, folder: Path, n_frames: int) -> Figures:
    figures: Figures = {
        f"cpu_ms_per_1000_{name}": cpu_s / n_frames * 1e6 for name, cpu_s in watch.cpu_s.items()
    }
    if watch.updates_per_s:
        figures["updates_per_s"] = watch.updates_per_s
    if (folder / "followed.json").exists():
        followed = msgspec.json.decode((folder / "followed.json").read_bytes(), type=Followed)
        figures |= {"client_images": followed.n_images, "client_frames_seen": followed.frames_seen}
        figures["cpu_ms_per_1000_client"] = followed.cpu_s / n_frames * 1e6
    return figures


def _died(notices: list[tuple[str, str]], logs: Path) -> Figures:
    """Returns what was told of the stages, and the last words in the logs of those."""
    stages = sorted({stage for stage, _ in notices if (logs / f"{stage}.log").exists()})
    return {
        "notices": [f"{stage}: {text}" for stage, text in notices[-20:]],
        "last_words": {stage: _last_lines(logs / f"{stage}.log") for stage in stages},
    }


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-LOG_LINES:]
