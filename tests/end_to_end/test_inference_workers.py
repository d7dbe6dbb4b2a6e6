"""Several workers of inference in their real processes: whoever of them freezes or dies, no frame is lost."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.record.account import account
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun

pytestmark = pytest.mark.slow

STOPPED_AT, SEEN_AT, KILLED_AT = 40, 100, {"inference-2": 120, "inference": 170}
SERIES = "shared"


def frames_with_trouble(pipeline: Pipeline, sample: ScannedSample) -> Iterator[np.ndarray]:
    """The frames of a scan; a worker is stopped until the other has done its part, then two are killed."""
    pid, victims = pipeline.supervisor.pid, {at: name for name, at in KILLED_AT.items()}
    for number, frame in enumerate(sample.frames):
        if number == STOPPED_AT:
            pipeline.until(lambda: pipeline.find(SERIES) and inferred(pipeline) > STOPPED_AT // 2)
            os.kill(pid("inference-1"), signal.SIGSTOP)
        if number == SEEN_AT:
            pipeline.until(lambda: inferred(pipeline) == SEEN_AT)
            os.kill(pid("inference-1"), signal.SIGCONT)
        if number in victims:
            pipeline.until(lambda: pipeline.supervisor.is_ready)
            os.kill(pid(victims[number]), signal.SIGKILL)
        yield frame


def inferred(pipeline: Pipeline) -> int:
    return account(pipeline.scan(SERIES), "inference").done


@pytest.mark.timeout(300)
def test_workers_that_freeze_and_die_cost_time_and_no_frame(
    run_folder: Path, demo_sample: ScannedSample
) -> None:
    sample = demo_sample
    settings = ("network.weights=demo-fast", "network.workers=2", "refinement.epochs=2")
    with Pipeline(run_folder, sample, *settings) as pipeline:
        pipeline.publish(PositionRun(SERIES, sample.positions_m).documents())
        pipeline.play_frames(frames_with_trouble(pipeline, sample), SERIES, len(sample), rate_hz=100)
        outcome = pipeline.outcome(SERIES)
        rows = [row.name for row in pipeline.supervisor.state.stages]
        assert pipeline.supervisor.n_restarts == len(KILLED_AT)

    outcome.assert_accounted(recorded=len(sample))
    assert outcome.figures["is_complete"]
    assert [name for name in rows if name.startswith("inference")] == [
        "inference",
        "inference-1",
        "inference-2",
    ]
    scan, numbers = outcome.scan, np.arange(len(sample))
    assert set(scan.column("worker").read(numbers).tolist()) == {1, 2}
