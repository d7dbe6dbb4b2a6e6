"""Frames are lost, come twice or in any order, series end as none should: every frame is accounted for."""

from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.letter import ScannedSample, scan_sample
from tests.helpers.pipeline import Outcome, Pipeline
from tests.helpers.stream.documents import PositionRun


@pytest.fixture(scope="module")
def other_sample() -> ScannedSample:
    """The same letter with other noise at other positions: no frame is like one of the first scan."""
    return scan_sample(seed=1)


def assert_whole(outcome: Outcome, sample: ScannedSample) -> None:
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    assert outcome.figures["is_complete"]
    assert outcome.error(sample).c < 0.1


def test_lost_frames_are_named_and_the_rest_is_reconstructed(
    pipeline: Pipeline, sample: ScannedSample
) -> None:
    outcome = pipeline.run(sample, "lossy", drop=frozenset({0, 40, 41, 99}))
    outcome.assert_accounted(recorded=96, lost=4)
    outcome.assert_recorded_as(sample)
    assert outcome.figures["incomplete"] == "lost 3 frames (0, 40-41); fewer than announced: 1 frame (99)"
    assert outcome.error(sample).c < 0.1


def test_frames_that_come_twice_count_once(pipeline: Pipeline, sample: ScannedSample) -> None:
    outcome = pipeline.run(sample, "repeated", duplicate=frozenset({0, 7, 8, 99}))
    assert_whole(outcome, sample)
    assert outcome.figures["duplicates"] == 4


def test_frames_in_any_order(pipeline: Pipeline, sample: ScannedSample) -> None:
    order = tuple(np.random.default_rng(1).permutation(len(sample)).tolist())
    assert_whole(pipeline.run(sample, "shuffled", order=order), sample)


def test_two_series_back_to_back_do_not_mix(
    pipeline: Pipeline, sample: ScannedSample, other_sample: ScannedSample
) -> None:
    scans = {"first": sample, "second": other_sample}
    for series, scanned in scans.items():
        pipeline.publish(PositionRun(series, scanned.positions_m).documents())
    for series, scanned in scans.items():
        pipeline.play(scanned, series)
    for series, scanned in scans.items():
        assert_whole(pipeline.outcome(series), scanned)


@pytest.mark.slow
def test_a_detector_that_restarts_in_the_middle_begins_another_scan(
    pipeline: Pipeline, sample: ScannedSample, other_sample: ScannedSample
) -> None:
    for series, scanned in (("died", sample), ("restarted", other_sample)):
        pipeline.publish(PositionRun(series, scanned.positions_m).documents())
    pipeline.play(sample, "died", stop_after=60)
    pipeline.play(other_sample, "restarted")
    died = pipeline.outcome("died")
    died.assert_accounted(recorded=60, lost=40)
    died.assert_recorded_as(sample)
    assert died.figures["incomplete"].startswith("fewer than announced: 40 frames (60-")
    assert died.result.frame_numbers.tolist() == list(range(60))
    assert_whole(pipeline.outcome("restarted"), other_sample)


def test_a_series_that_was_only_armed_loses_what_it_announced(
    pipeline: Pipeline, sample: ScannedSample
) -> None:
    outcome = pipeline.run(sample, "armed", drop=frozenset(range(100)))
    outcome.assert_accounted(recorded=0, lost=100)
    assert outcome.result is None
    assert outcome.figures["incomplete"].startswith("fewer than announced: 100 frames (0-99")


def test_an_empty_series_says_that_it_is(pipeline: Pipeline, sample: ScannedSample) -> None:
    outcome = pipeline.run(sample.first(0), "empty")
    outcome.assert_accounted(recorded=0)
    assert outcome.result is None
    assert outcome.figures["incomplete"] == "no frames"
    assert not outcome.figures["is_complete"]


@pytest.mark.slow
def test_a_scan_that_has_begun_is_joined_where_frames_and_documents_are_first_heard(
    pipeline: Pipeline, sample: ScannedSample
) -> None:
    run = PositionRun("joined", sample.positions_m)
    pipeline.publish(run.events(range(30, 100)))
    pipeline.play(sample, "joined", without_start=True, drop=frozenset(range(30)))
    pipeline.publish(run.closing)
    outcome = pipeline.outcome("joined")
    outcome.assert_accounted(recorded=70, lost=30)
    outcome.assert_recorded_as(sample)
    joined = "not received 30 frames (0-29): the run joined at frame 30"
    assert outcome.figures["incomplete"] == joined
    assert outcome.result is not None
    assert outcome.result.frame_numbers.tolist() == list(range(30, 100))


@pytest.mark.slow
def test_a_series_longer_than_announced_is_recorded_whole(pipeline: Pipeline, sample: ScannedSample) -> None:
    assert_whole(pipeline.run(sample, "long", announce=60), sample)


@pytest.mark.slow
def test_a_series_without_its_first_and_last_message(pipeline: Pipeline, sample: ScannedSample) -> None:
    pipeline.publish(PositionRun("headless", sample.positions_m).documents())
    pipeline.play(sample, "headless", without_start=True, without_end=True)
    pipeline.until(lambda: pipeline.recorded("headless") == len(sample))
    pipeline.run(sample.first(0), "next")  # only another series can end one that nobody ends
    assert_whole(pipeline.outcome("headless"), sample)


@pytest.mark.slow
@pytest.mark.allow_error_log
def test_frames_too_small_for_the_patterns_are_recorded_and_spare_the_next_series(
    pipeline: Pipeline, sample: ScannedSample
) -> None:
    small = replace(sample, frames=sample.frames[:, 8:24, 8:24])
    outcome = pipeline.run(small, "small")
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(small)
    assert outcome.result is None
    assert outcome.figures["incomplete"].startswith("refinement could not use 100 frames (0-99)")
    assert any("frames have shape (16, 16)" in notice for notice in pipeline.notices)
    assert_whole(pipeline.run(sample, "after-small"), sample)
