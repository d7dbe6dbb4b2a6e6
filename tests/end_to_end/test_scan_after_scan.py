"""Scan follows scan: the image of the next one begins while the one before is being finished."""

import os
import signal
from pathlib import Path

import h5py
import pytest

from launch.results.halves import LEFT
from stream.record.error_curve import read_error_curve
from stream.record.handover import awaits_finishing, is_handed_over, was_handed_over
from tests.helpers.letter import ScannedSample, scan_sample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun

LONG = "refinement.epochs=600"  # longer than a scan takes, on any computer


def play(pipeline: Pipeline, sample: ScannedSample, series: str) -> None:
    pipeline.publish(PositionRun(series, sample.positions_m).documents())
    pipeline.play(sample, series)


@pytest.mark.slow
def test_the_second_scan_of_a_place_starts_from_the_first_and_its_result_says_so(
    run_folder: Path, sample: ScannedSample
) -> None:
    with Pipeline(run_folder, sample, "series.reuse=object", "refinement.epochs=30") as pipeline:
        first = pipeline.run(sample, "first")
        second = pipeline.run(scan_sample(seed=1), "second")
    assert "reused_from" not in first.figures
    assert second.figures["reused_from"] == first.scan.name
    assert second.figures["reused_object_frames"] > 90, "all but some on empty ground"
    with h5py.File(second.figures["result"]) as file:
        assert file["entry_1/process_1/reused_from"][()].decode() == first.scan.name
    errors = [read_error_curve(outcome.scan.folder)["error"][0] for outcome in (first, second)]
    assert errors[1] < errors[0] / 2, "in its first epoch"
    assert second.error(scan_sample(seed=1)).c < 0.1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_next_scan_is_shown_while_the_one_before_is_finished_also_by_a_finisher_that_was_killed(
    run_folder: Path, sample: ScannedSample
) -> None:
    with Pipeline(run_folder, sample, LONG) as pipeline:
        play(pipeline, sample, "first")
        play(pipeline, sample, "second")
        pipeline.until(lambda: pipeline.is_shown("second"))
        first = pipeline.scan("first")
        assert is_handed_over(first, "stitcher"), pipeline.supervisor.state
        assert not first.count("refinement", "closed"), "it takes longer than that"
        pipeline.until(lambda: [scan.name for scan in pipeline.supervisor.state.finishing] == [first.name])

        pipeline.until(lambda: pipeline.supervisor.progress["finisher"].scan == first.name)
        os.kill(pipeline.supervisor.pid("finisher"), signal.SIGKILL)
        pipeline.until(lambda: pipeline.supervisor.n_restarts == 1)
        play(pipeline, sample, "third")
        outcomes = [pipeline.outcome(series) for series in ("first", "second", "third")]
        pipeline.until(lambda: not pipeline.supervisor.state.finishing)

    for outcome in outcomes:
        outcome.assert_accounted(recorded=len(sample))
        assert outcome.figures["is_complete"], outcome.figures["incomplete"]
        assert outcome.figures["epochs"] >= 600
        assert outcome.error(sample).c < 0.1
    announced = [notice for notice in pipeline.notices if "is finished: scan complete" in notice]
    for scan in (each.scan for each in outcomes if was_handed_over(each.scan)):
        (told,) = (notice for notice in announced if scan.name in notice)
        assert told.endswith(str(run_folder / "results" / f"{scan.name}.cxi"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_resolution_of_a_scan_is_measured_whether_or_not_another_follows(
    run_folder: Path, sample: ScannedSample
) -> None:
    with Pipeline(run_folder, sample, "results.resolution=always", "refinement.epochs=12") as pipeline:
        for series in ("first", "second"):
            play(pipeline, sample, series)
        pipeline.supervisor.wait_for_series(2)
        first, second = (pipeline.result_of(pipeline.scan(series)) for series in ("first", "second"))
        assert first.scan.count("recorder", "step") == LEFT
    for outcome in (first, second):
        assert outcome.figures["resolution_m"] > 0
        assert outcome.result is not None
        assert outcome.result.halves is not None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_that_is_asked_to_end_finishes_the_scans_that_wait_for_it(
    run_folder: Path, sample: ScannedSample
) -> None:
    with Pipeline(run_folder, sample, LONG, "finisher.order=newest") as pipeline:
        for series in ("first", "second", "third"):
            play(pipeline, sample, series)
        pipeline.until(lambda: pipeline.is_shown("third"))
        pipeline.until(lambda: pipeline.supervisor.state.finishing)
        pipeline.supervisor.stop()
        outcomes = [pipeline.result_of(pipeline.scan(series)) for series in ("first", "second", "third")]
    for outcome in outcomes:
        assert outcome.figures["is_complete"], outcome.figures["incomplete"]
        assert outcome.figures["epochs"] >= 600


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_run_has_not_come_to_the_next_one_in_its_folder_finishes_as_the_first_was_told(
    run_folder: Path, sample: ScannedSample, demo_sample: ScannedSample
) -> None:
    with Pipeline(run_folder, sample, LONG) as pipeline:
        for series in ("first", "second", "third"):
            play(pipeline, sample, series)
        pipeline.until(lambda: pipeline.is_shown("third"))
        pipeline.until(lambda: pipeline.supervisor.progress["finisher"].scan == pipeline.scan("first").name)
        in_hand, left = (pipeline.scan(series) for series in ("first", "second"))
    assert pipeline.result_of(in_hand).figures["is_complete"], "results of what it had come to"
    assert awaits_finishing(left)

    # with a stage that the first had not, and other pixels
    with Pipeline(run_folder, demo_sample, "network.weights=demo") as pipeline:
        pipeline.until(lambda: left.count("recorder", "closed"))
    outcome = pipeline.result_of(left)
    assert outcome.figures["epochs"] >= 600, "not what the second run was told"
    assert not left.has("patches")
    assert outcome.figures["is_complete"]
    assert outcome.error(sample).c < 0.1
