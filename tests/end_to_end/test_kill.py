"""kill -9, a store that fails or hangs: what is recorded stays, and the image goes on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from operators.metrics.errors import nrmse
from stream.live.client import LiveReconstruction
from stream.live.image import LiveImage
from stream.record.account import account
from stream.record.scan import INGESTS, State
from stream.stages.stitching.composition import REFINED
from tests.helpers.launch.commands import processes_of
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun

pytestmark = pytest.mark.slow

KILLED_AT = {"inference": 40, "refinement": 80, "stitcher": 120}
SEEN_AGAIN_AT = 160


def kill(pipeline: Pipeline, stage: str) -> None:
    os.kill(pipeline.supervisor.pid(stage), signal.SIGKILL)


def frames_that_kill(
    pipeline: Pipeline, sample: ScannedSample, series: str, images: list[LiveImage]
) -> Iterator[np.ndarray]:
    """The frames of a scan; when so many are recorded, a stage dies. Two are never dead at once.

    The scan ends only after a client has seen the image go on.
    """
    stages = {at: stage for stage, at in KILLED_AT.items()}
    for number, frame in enumerate(sample.frames):
        if number in stages:
            pipeline.until(lambda n=number: pipeline.recorded(series) == n and pipeline.supervisor.is_ready)
            kill(pipeline, stages[number])
        if number == SEEN_AGAIN_AT:
            pipeline.until(lambda: images[-1].frames_seen > KILLED_AT["stitcher"])
        yield frame


@pytest.mark.timeout(300)
def test_stages_killed_once_each_lose_nothing_and_the_image_goes_on(
    run_folder: Path, demo_sample: ScannedSample
) -> None:
    sample, images = demo_sample, list[LiveImage]()
    with Pipeline(run_folder, sample, "network.weights=demo") as pipeline:
        undisturbed = pipeline.run(sample, "undisturbed")
        pipeline.publish(PositionRun("disturbed", sample.positions_m).documents())
        with LiveReconstruction(pipeline.live_address, follow=True) as live:

            def watch() -> None:
                image = live.poll()
                if image is not None and image.scan.endswith("-disturbed"):
                    images.append(image)

            pipeline.on_turn = watch
            frames = frames_that_kill(pipeline, sample, "disturbed", images)
            pipeline.play_frames(frames, "disturbed", len(sample), rate_hz=60)
            disturbed = pipeline.outcome("disturbed")
            pipeline.until(lambda: images and images[-1].is_final)
        assert pipeline.supervisor.n_restarts == len(KILLED_AT)

    disturbed.assert_accounted(recorded=len(sample))
    disturbed.assert_recorded_as(sample)
    assert disturbed.figures["is_complete"]
    # Refinement that was interrupted took other steps on the way: both are judged by the truth.
    assert disturbed.error(sample).c < 1.2 * undisturbed.error(sample).c
    # At the rim the image may show the mosaic where that explains the frames better; the result does not.
    refined = sample.lit * (images[-1].source == REFINED)
    assert refined.sum() > 0.9 * sample.lit.sum()
    assert nrmse(images[-1].object, disturbed.result.object, refined).loose < 1e-3
    mosaics = [outcome.result.maps["mosaic"] for outcome in (disturbed, undisturbed)]
    assert nrmse(*mosaics, sample.lit).loose < 1e-3
    assert disturbed.error(sample).c < 0.1

    versions, seen = [image.version for image in images], [image.frames_seen for image in images]
    assert versions == sorted(set(versions)), "a version came again or went back"
    assert sum(KILLED_AT["stitcher"] <= count for count in seen) > 1
    assert seen[-1] == len(sample)


def test_a_killed_subscriber_keeps_what_it_recorded_and_names_what_was_lost(
    run_folder: Path, sample: ScannedSample
) -> None:
    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(sample.frames):
            if number == 50:
                pipeline.until(lambda: pipeline.recorded("orphaned") == 50)
                os.kill(pipeline.supervisor.pid("subscriber"), signal.SIGSTOP)
            elif number == 60:  # ten frames lie in the buffers of a process that will not read them
                kill(pipeline, "subscriber")
                pipeline.until(lambda: pipeline.supervisor.n_restarts and pipeline.supervisor.is_ready)
            yield frame

    with Pipeline(run_folder, sample) as pipeline:
        pipeline.publish(PositionRun("orphaned", sample.positions_m).documents())
        pipeline.play_frames(frames(), "orphaned", len(sample))
        outcome = pipeline.outcome("orphaned")

    lost = np.flatnonzero(outcome.scan.states("subscriber") == State.LOST)
    assert lost.tolist() == list(range(50, 60))
    outcome.assert_accounted(recorded=90, lost=10)
    outcome.assert_recorded_as(sample)
    assert outcome.figures["incomplete"] == "lost 10 frames (50-59)"
    assert outcome.error(sample).c < 0.15


@pytest.mark.timeout(300)
def test_of_two_subscribers_each_may_be_stopped_or_killed_and_the_other_goes_on(
    run_folder: Path, sample: ScannedSample
) -> None:
    def frames() -> Iterator[np.ndarray]:
        supervisor = pipeline.supervisor
        for number, frame in enumerate(sample.frames):
            if number == 20:
                os.kill(supervisor.pid("subscriber-2"), signal.SIGSTOP)
            elif number == 30:
                pipeline.until(lambda: any("does not move, stopped" in text for text in pipeline.notices))
                os.kill(supervisor.pid("subscriber-2"), signal.SIGCONT)
                pipeline.until(lambda: pipeline.recorded("shared") == 30)  # nothing was lost by it
                os.kill(supervisor.pid("subscriber-2"), signal.SIGSTOP)
            elif number == 40:
                kill(pipeline, "subscriber-2")
                pipeline.until(lambda: supervisor.n_restarts == 1 and supervisor.is_ready)
            elif number == 60:
                pipeline.until(lambda: pipeline.recorded("shared") >= 53)
                os.kill(supervisor.pid("subscriber"), signal.SIGSTOP)
            elif number == 70:
                kill(pipeline, "subscriber")
                pipeline.until(lambda: supervisor.n_restarts == 2 and supervisor.is_ready)
            yield frame

    with Pipeline(run_folder, sample, "detector.subscribers=2") as pipeline:
        pipeline.publish(PositionRun("shared", sample.positions_m).documents())
        pipeline.play_frames(frames(), "shared", len(sample))
        outcome = pipeline.outcome("shared")
        counts = {name: pipeline.supervisor.progress[name].counts for name in INGESTS}

    lost = np.flatnonzero(outcome.scan.states("subscriber") == State.LOST)
    assert 6 <= len(lost) <= 17, "what the killed ones had in hand, of ten frames each"
    assert set(lost) <= {*range(30, 40), *range(50, 70)}
    outcome.assert_accounted(recorded=len(sample) - len(lost), lost=len(lost))
    outcome.assert_recorded_as(sample)
    assert outcome.figures["incomplete"].startswith(f"lost {len(lost)} frames")
    assert counts["subscriber-2"]["recorded"] > 10, "the restart takes part"


def test_killed_positions_are_taken_up_again(run_folder: Path, sample: ScannedSample) -> None:
    run = PositionRun("resumed", sample.positions_m)
    with Pipeline(run_folder, sample) as pipeline:
        pipeline.publish([*run.opening, *run.events(range(50))])
        pipeline.play(sample.first(50), "resumed", announce=len(sample), without_end=True)
        pipeline.until(
            lambda: (
                pipeline.recorded("resumed") == 50
                and (pipeline.scan("resumed").states("positions") == State.DONE).all()
            )
        )
        kill(pipeline, "positions")
        pipeline.until(lambda: pipeline.supervisor.n_restarts and pipeline.supervisor.is_ready)
        pipeline.reconnect_publisher()
        pipeline.publish([*run.events(range(50, len(sample))), *run.closing])
        pipeline.play(sample, "resumed", drop=frozenset(range(50)))
        outcome = pipeline.outcome("resumed")
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    assert outcome.figures["is_complete"]


def test_a_store_that_cannot_be_written_costs_its_entry_and_nothing_else(
    run_folder: Path, sample: ScannedSample
) -> None:
    (run_folder / "file").write_text("a file is no folder")
    store = ("store.enabled=true", f"store.path={run_folder}/file/store")
    with Pipeline(run_folder, sample, *store) as pipeline:
        outcome = pipeline.run(sample, "unstored")
        pipeline.until(lambda: any("is not in the store" in notice for notice in pipeline.notices))
        outcome = pipeline.result_of(outcome.scan)
        assert pipeline.supervisor.n_restarts == 0
    assert outcome.figures["is_complete"]
    assert outcome.figures["uid"] == ""
    (notice,) = [notice for notice in pipeline.notices if "is not in the store" in notice]
    assert "Not a directory" in notice


@pytest.fixture
def hanging_store(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of the store never finish loading."""
    stuck = run_folder / "stuck" / "tiled"
    stuck.mkdir(parents=True)
    (stuck / "__init__.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setenv("PYTHONPATH", str(stuck.parent))


@pytest.mark.usefixtures("hanging_store")
def test_a_store_that_hangs_is_given_up(run_folder: Path, sample: ScannedSample) -> None:
    with Pipeline(run_folder, sample, "store.enabled=true", "store.timeout_s=2") as pipeline:
        outcome = pipeline.run(sample, "first")
    outcome.assert_accounted(recorded=len(sample))
    assert outcome.figures["is_complete"]
    assert outcome.figures["uid"] == ""
    assert any("no answer in 2 s" in notice for notice in pipeline.notices)


@pytest.mark.usefixtures("hanging_store")
def test_a_store_that_hangs_does_not_delay_the_next_scan_and_ends_with_the_run(
    run_folder: Path, sample: ScannedSample
) -> None:
    with Pipeline(run_folder, sample, "store.enabled=true") as pipeline:
        for series in ("first", "second"):
            pipeline.publish(PositionRun(series, sample.positions_m).documents())
            pipeline.play(sample, series)
        pipeline.until(
            lambda: any("launch.results.store.process" in line for line in processes_of(run_folder))
        )
        pipeline.until(
            lambda: pipeline.find("second") and pipeline.scan("second").count("stitcher", "closed")
        )
        assert not pipeline.scan("first").count("recorder", "closed")
        second = account(pipeline.scan("second"), "stitcher")
    assert (second.done, second.pending) == (len(sample), 0)
    assert processes_of(run_folder) == []
