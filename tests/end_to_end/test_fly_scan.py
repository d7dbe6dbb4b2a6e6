"""A fly scan of ophyd-async, positions in a PandA's file that grows: into the pipeline, to the image."""

import threading
from pathlib import Path

import numpy as np
import pytest
from bluesky import RunEngine
from ophyd_async.core import init_devices

from launch.beamline.facility import captures_of, fly
from launch.beamline.panda import DATASETS, SimulatedPanda
from launch.offline.recorded import open_recorded
from stream.documents.codec import read_documents
from stream.record.scan import State
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline

RATE_HZ = 50.0
SPREAD_UM = (-0.02, 0.005, 0.015)  # of the captures during one exposure


@pytest.mark.slow
def test_positions_in_the_file_of_a_panda_become_the_right_image(
    tmp_path: Path, sample: ScannedSample
) -> None:
    captures_um = captures_of(sample.positions_m, SPREAD_UM)
    unread = [4, 23, 42, 67, 88]
    captures_um[[3 * frame + 1 for frame in unread]] = np.nan
    files = tmp_path / "panda"
    files.mkdir()
    engine = RunEngine(context_managers=[])  # those of signals want the main thread
    with init_devices():
        panda = SimulatedPanda(files, captures_um, period_s=1 / (3 * RATE_HZ), n_at_once=20)
    y, x = DATASETS
    settings = (f"positions.y={y}", f"positions.x={x}", f"positions.folders=[{files}]", "positions.late_s=5")
    with Pipeline(tmp_path / "saved", sample, *settings) as pipeline:
        engine.subscribe(pipeline.publisher)
        flight = threading.Thread(target=lambda: engine(fly({panda: len(SPREAD_UM)}, len(sample), "flown")))
        flight.start()
        placed_in_flight = []

        def look() -> None:
            if flight.is_alive() and (scan := pipeline.find("flown")):
                placed_in_flight.append(np.count_nonzero(scan.states("positions") == State.DONE))

        pipeline.on_turn = look
        pipeline.play(sample, "flown", rate_hz=RATE_HZ)
        outcome = pipeline.outcome("flown")
        flight.join()
        pipeline.on_turn = lambda: None

    assert max(placed_in_flight) >= 10, "positions came while the file was written"
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    assert outcome.figures["incomplete"] == "no position for 5 frames (4, 23, 42, 67 and 1 more)"
    assert outcome.error(sample).c < 0.1

    (file,) = files.iterdir()
    file.unlink()  # the record needs it no more
    names = [name for name, _ in read_documents(outcome.scan.folder)]
    assert names[:4] == ["start", "descriptor", "stream_resource", "stream_resource"]
    assert names[-1] == "stop"
    known_m = sample.positions_m.copy()
    known_m[unread] = np.nan
    with open_recorded(str(outcome.scan.folder)) as recorded:
        assert recorded.frame_numbers.tolist() == list(range(len(sample)))
        np.testing.assert_allclose(recorded.positions_m, known_m, rtol=1e-9, atol=1e-15)
