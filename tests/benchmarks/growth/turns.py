"""What one turn of a stage costs of the processor when so many frames are behind it and a batch is new."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from launch.config.run_file import new_run
from launch.config.sections import ResultsConfig, StoreConfig
from launch.results.recorder import Recorder
from launch.run.progress import Shown, describe
from launch.run.run_watch import RunWatch
from launch.run.stages import stages_of
from operators.geometry import Bounds
from stream.detector.config import DetectorConfig
from stream.detector.dectris import encode_message
from stream.detector.simulator import ReplayConfig, series_messages
from stream.documents.codec import encode_document
from stream.documents.config import PositionsConfig
from stream.files.weights import save_network
from stream.record.probe import publish_probe
from stream.record.scan import Scan, State
from stream.record.snapshot import write_snapshot
from stream.stages.config import NetworkConfig, ProbeConfig
from stream.stages.cursor import ScanCursor
from stream.stages.inference.worker import Inference
from stream.stages.ingest.subscriber import Subscriber
from stream.stages.inputs import ImageOrigin, Optics
from stream.stages.positions import Positions
from stream.stages.probe import ProbeFinder
from stream.stages.stage import Source, Worker
from stream.stages.stitching.picture import LivePicture
from stream.wire import addresses
from stream.wire.codec import Buffer
from tests.benchmarks.growth.scans import BEFORE, FIELD_PX, Frames, GrowingScan, on_field, snapshot_on
from tests.benchmarks.growth.stages import Ticks, refinement, stitcher
from tests.helpers.launch.runs import TRAINED_PROBE, make_config
from tests.helpers.stream.inference_bench import CARD, network

FEW, MANY = 1_000, 100_000
SMALL = Frames(16)
ROUNDS, NEW, TURNS = 40, 64, 4
AFTER = {"stitcher": ("refinement",), "recorder": ("refinement", "stitcher")}
Turn = Callable[[], object]


def turn_figures(folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield what turns cost, microseconds, with few and with many frames before, stage by stage."""
    measures = {"subscriber": _subscriber, "positions": _positions, "supervisor": _supervisor}
    for name in (*measures, "probe", "inference", "refinement", "stitcher", "recorder"):
        times_us = []
        for n_before in (FEW, MANY):
            own = folder / f"{name}-{n_before}"
            own.mkdir(parents=True)
            measure = measures.get(name)
            times_us.append(measure(own, n_before) if measure else _worker(name, own, n_before))
        few, many = times_us
        yield name, {"us_1e3": few, "us_1e5": many, "1e5_over_1e3": many / few}


def _median_us(rounds: Iterator[Turn]) -> float:
    times = []
    for turn in rounds:
        begin = time.process_time()
        turn()
        times.append(time.process_time() - begin)
    return 1e6 * statistics.median(times)


def _worker(name: str, folder: Path, n_before: int) -> float:
    """Return the mean time of a turn of `name` while a batch comes, is worked on and published."""
    inputs = (*BEFORE, *AFTER.get(name, ()))
    growing = GrowingScan(folder / "scans", SMALL, on_field)
    growing.add(n_before, (*inputs, name))
    stage = _stage(name, folder, growing.scan, n_before)
    cursor = ScanCursor(stage, growing.scan, Ticks())

    def turns() -> None:
        for _ in range(TURNS):
            cursor.turn()
            cursor.work.counts()
            if isinstance(cursor.work, LivePicture):  # and a client is sent what it does not have
                cursor.work.news_after(cursor.scan.name, cursor.work.version - 1)

    def rounds() -> Iterator[Turn]:
        for _ in range(ROUNDS):
            growing.add(min(NEW, stage.batch_size), inputs)
            yield turns

    took_us = _median_us(rounds()) / TURNS
    n_left = int((Scan(growing.scan.folder).states(name) == State.PENDING).sum())
    if n_left and name != "refinement":  # which marks a frame when it has taken part in an update
        raise RuntimeError(f"{name} has left {n_left} frames of {growing.scan.folder}")
    return took_us


def _stage(name: str, folder: Path, scan: Scan, n_before: int) -> Worker:
    """Return the stage started again, when it has done all frames of `scan` so far."""
    optics = SMALL.optics(folder)
    origin = ImageOrigin(optics=optics, uses_network=True, uses_refinement=True)
    side, probe = FIELD_PX + SMALL.n_pixels, SMALL.probe()
    write_snapshot(scan.folder, snapshot_on(Bounds(0, 0, side, side), probe, n_before, n_before))
    scan.counters("refinement", writable=True)["version"] = 1
    if name == "probe":
        publish_probe(scan, probe)
        unknown = Optics(SMALL.geometry())
        return ProbeFinder(ProbeConfig(), unknown, guess=None, transmission=1.0, threads=1)
    if name == "inference":
        save_network(folder / "weights.safetensors", network(), CARD)
        return Inference(NetworkConfig(weights=folder / "weights.safetensors", device="cpu"), optics, Ticks())
    if name == "refinement":
        return refinement(SMALL, folder, probe_step=0)
    if name == "stitcher":
        return stitcher(SMALL, folder, uses_refinement=True)
    return Recorder(ResultsConfig(), StoreConfig(), origin, folder)


def _source(source: Source, batches: Iterator[Sequence[Sequence[Buffer]]]) -> float:
    def turn(batch: Sequence[Sequence[Buffer]]) -> None:
        source.handle(batch)
        source.idle(0.0)
        source.progress()

    took_us = _median_us(lambda batch=batch: turn(batch) for batch in batches)  # type: ignore[misc]
    return took_us


def _subscriber(folder: Path, n_before: int) -> float:
    GrowingScan(folder / "scans", SMALL, on_field).add(n_before, ("subscriber",))
    frame = np.zeros((SMALL.n_pixels, SMALL.n_pixels), "<u2")
    n_frames = n_before + ROUNDS * NEW
    config = ReplayConfig(series_uid="growing", series_id=0, rate_hz=1000.0)
    messages = series_messages((frame for _ in range(n_frames)), config, n_frames)
    images = islice(messages, n_before + 1, n_before + 1 + ROUNDS * NEW)
    batches = ([[encode_message(message)] for _, message in islice(images, NEW)] for _ in range(ROUNDS))
    source = Subscriber(DetectorConfig(address=addresses.DETECTOR), folder / "scans")
    took_us = _source(source, batches)
    if source.progress()[1]["recorded"] != n_frames:
        raise RuntimeError(f"the subscriber has {source.progress()} of {n_frames} frames")
    return took_us


def _positions(folder: Path, n_before: int) -> float:
    growing = GrowingScan(folder / "scans", SMALL, on_field)
    growing.add(n_before, ("subscriber", "positions"))
    source = Positions(PositionsConfig(unit="um"), folder / "scans")
    keys = {field: {"units": "um"} for field in ("y", "x")}
    opening: list[tuple[str, dict]] = [
        ("start", {"uid": "run", "detector_series_id": "growing"}),
        (
            "descriptor",
            {"uid": "d", "run_start": "run", "data_keys": keys, "hints": {"s": {"fields": ["y", "x"]}}},
        ),
    ]
    source.handle([[encode_document(*document)] for document in opening])

    def batches() -> Iterator[list[list[Buffer]]]:
        for _ in range(ROUNDS):
            numbers = growing.add(NEW, ("subscriber",))
            data = {"y": [1.0] * NEW, "x": [1.0] * NEW}
            page = {"descriptor": "d", "seq_num": (numbers + 1).tolist(), "data": data}
            yield [[encode_document("event_page", page)]]

    took_us = _source(source, batches())
    if (n_done := source.progress()[1]["done"]) != growing.n_frames:
        raise RuntimeError(f"{n_done} of {growing.n_frames} frames have a position")
    return took_us


def _supervisor(folder: Path, n_before: int) -> float:
    """Return what the supervisor's look at the run costs, and its progress line."""
    config = make_config(folder, network={"weights": "demo"}, probe=TRAINED_PROBE)
    run = new_run(config, stages_of(config))
    watch = RunWatch(run, lambda *_: None, Ticks())
    processes = {spec.name: _Process() for spec in run.stages}
    growing = GrowingScan(folder / "scans", SMALL, on_field)
    growing.add(n_before, (*BEFORE, "refinement", "stitcher"))
    growing.scan.column("mosaicked_s", writable=True).write(np.arange(n_before), 2.0)
    seen = Scan(growing.scan.folder)
    shown = Shown.of(seen)

    def look() -> None:
        watch.look([seen], processes)  # type: ignore[arg-type]
        describe(shown)

    def rounds() -> Iterator[Turn]:
        for _ in range(ROUNDS):
            growing.add(NEW, (*BEFORE, "refinement", "stitcher"))
            yield look

    return _median_us(rounds())


class _Process:
    """A process with which nothing is wrong, as its supervisor sees it."""

    trouble, silence_s, progress = None, 0.0, None
