"""Beamlines, each with its own detector and positions: to the right image, no sign or orientation set.

The beamline on EPICS is in `test_pva.py`.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from bluesky import RunEngine

from launch.beamline.facility import Flight, run_facility
from launch.beamline.panda import DATASETS
from launch.commands.replay import PositionDocuments, Publish
from stream.detector.files import writers
from stream.detector.protocol import EncodedFrame
from stream.detector.simulator import Compression, Faults, Replay, ReplayConfig
from stream.documents.outlets import FIELDS
from stream.documents.senders import RelaySender, TextSender
from stream.files.cxi import ENTRY, TRANSLATION
from stream.wire.sockets import Endpoint
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Outcome, Pipeline
from tests.helpers.stream.documents import PositionRun

LOST, UNPLACED = frozenset({3, 40, 41, 77, 90}), [7, 23, 55, 68, 81]
DATA_FILE = 10  # frames of a data file of DECTRIS
RATE_HZ = 100.0
FILES = "format: files, silence_s: 2, end_grace_s: 0.5"


def v1_and_relay(folder: Path, sample: ScannedSample) -> Outcome:
    names = "/FMC_IN.VAL2.Value", "/FMC_IN.VAL1.Value"
    with closing(RelaySender(Endpoint(address="tcp://127.0.0.1:*", bind=True), names, FIELDS)) as relay:
        positions = f"source: panda-json, address: '{relay.address}', y: {names[0]}, x: {names[1]}"
        settings = f"positions={{{positions}, unit: um, late_s: 1}}"
        with Pipeline(folder, sample, settings, format="dectris-v1") as pipeline:
            pipeline.until(relay.is_heard)
            return flown(pipeline, pipeline.detector, sample, relay, Faults(drop=LOST, order=_shuffled()))


def stream_datum_and_hdf5(folder: Path, sample: ScannedSample) -> Outcome:
    y, x = DATASETS
    flight = Flight(frames=sample.frames, positions_m=_known(sample), name="flown", rate_hz=RATE_HZ)
    engine = RunEngine(context_managers=[])  # those of signals want the main thread
    settings = (
        f"detector={{{FILES}, path: {folder}/detector/*.h5}}",
        f"positions.y={y}",
        f"positions.x={x}",
        f"positions.folders=[{folder}/panda]",
    )
    with Pipeline(folder / "saved", sample, *settings) as pipeline:
        thread = threading.Thread(target=run_facility, args=(flight, folder, pipeline.publisher, engine))
        thread.start()
        outcome = _only(pipeline)
        thread.join()
    return outcome


def jungfraujoch_and_events(folder: Path, sample: ScannedSample) -> Outcome:
    run = PositionRun("flown", sample.positions_m)
    placed = [number for number in _shuffled(1) if number not in UNPLACED]
    with Pipeline(folder, sample, format="jungfraujoch") as pipeline:
        pipeline.publish([*run.opening, *run.events(placed), *run.closing])
        faults = Faults(drop=LOST, order=_shuffled())
        return flown(pipeline, pipeline.detector, sample, None, faults, "bszstd")


def master_files_and_csv(folder: Path, sample: ScannedSample) -> Outcome:
    table, files = folder / "positions.csv", folder / "detector"
    settings = (
        f"detector={{{FILES}, path: {files}}}",
        f"positions={{source: growing-file, growing_path: {table}, unit: um, late_s: 1}}",
    )
    with (
        Replay(writers.DectrisFileSender(files)) as detector,
        Pipeline(folder, sample, *settings) as pipeline,
    ):
        csv = TextSender(table, ("y", "x"), FIELDS)
        return flown(pipeline, detector, sample, csv, Faults(drop=frozenset(range(20, 20 + DATA_FILE))))


def growing_cxi(folder: Path, sample: ScannedSample) -> Outcome:
    files = folder / "detector"
    settings = (
        f"detector={{{FILES}, path: {files}}}",
        f"positions={{source: growing-file, growing_path: '{files}/*.cxi', late_s: 1}}",
    )
    with (
        Replay(_MovedSample(files, _known(sample))) as detector,
        Pipeline(folder, sample, *settings) as pipeline,
    ):
        return flown(pipeline, detector, sample, None, Faults())


class _MovedSample(writers.CxiSender):
    """A file with the frames and, beside each, how the sample was moved."""

    def __init__(self, folder: Path, positions_m: np.ndarray) -> None:
        super().__init__(folder)
        self._positions_m = positions_m

    def _describe(self, file: h5py.File) -> None:
        super()._describe(file)
        file.create_dataset(f"{ENTRY}/{TRANSLATION[0]}", (0, 3), "f8", maxshape=(None, 3), chunks=(64, 3))

    def _write(self, number: int, frame: EncodedFrame) -> None:
        super()._write(number, frame)
        assert self._file is not None
        y, x = self._positions_m[number]
        translation = self._file[f"{ENTRY}/{TRANSLATION[0]}"]
        translation.resize(number + 1, axis=0)
        translation[number] = -x, -y, 0.0
        translation.flush()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beamline", "lost"),
    [
        (v1_and_relay, LOST),
        (stream_datum_and_hdf5, frozenset()),
        (jungfraujoch_and_events, LOST),
        (master_files_and_csv, frozenset(range(20, 20 + DATA_FILE))),
        (growing_cxi, frozenset()),
    ],
)
def test_a_beamline_with_lost_frames_and_positions_comes_to_the_right_image(
    tmp_path: Path,
    sample: ScannedSample,
    beamline: Callable[[Path, ScannedSample], Outcome],
    lost: frozenset[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writers, "FRAMES_PER_FILE", DATA_FILE)

    outcome = beamline(tmp_path, sample)

    outcome.assert_accounted(recorded=len(sample) - len(lost), lost=len(lost))
    outcome.assert_recorded_as(sample)
    placed = set(range(len(sample))) - set(UNPLACED)  # positions come of frames that were lost, too
    assert set(outcome.scan.done("positions").tolist()) == placed
    assert outcome.error(sample).c < 0.1


def flown(
    pipeline: Pipeline,
    detector: Replay,
    sample: ScannedSample,
    publish: Publish | None,
    faults: Faults,
    compression: Compression = "bslz4",
) -> Outcome:
    """Plays the scan, its positions as their frames leave; returns what it came to."""
    documents = PositionDocuments(
        publish or (lambda name, document: None), np.arange(len(sample)), _known(sample), "flown", 10, "um"
    )
    documents.begin()
    pipeline.on_turn = lambda: documents.reach(detector.n_sent - 1)
    config = ReplayConfig(series_uid="flown", rate_hz=RATE_HZ, compression=compression, faults=faults)
    detector.play(sample.frames, config, len(sample), is_stopped=pipeline.looks_after)
    pipeline.on_turn = lambda: None
    documents.end()
    return _only(pipeline)


def _only(pipeline: Pipeline) -> Outcome:
    pipeline.until(lambda: pipeline.supervisor.scans())
    return pipeline.outcome(pipeline.supervisor.scans()[0].header.series_uid)


def _known(sample: ScannedSample) -> np.ndarray:
    known_m = sample.positions_m.copy()
    known_m[UNPLACED] = np.nan
    return known_m


def _shuffled(seed: int = 0) -> tuple[int, ...]:
    """Numbers of the frames, out of order by a few."""
    late = np.arange(100) + np.random.default_rng(seed).uniform(0, 5, 100)
    return tuple(np.argsort(late).tolist())
