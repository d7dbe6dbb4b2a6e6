"""Positions come late, early, in any order, twice or not at all: no frame gets another one's."""

import numpy as np
import pytest

from operators.metrics.errors import nrmse
from stream.record.scan import State
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Outcome, Pipeline, in_pages
from tests.helpers.stream.documents import PositionRun

SAME = 0.02  # loose NRMSE between two runs that saw the same frames in another order


def assert_same_object(outcome: Outcome, well_behaved: Outcome, sample: ScannedSample) -> None:
    assert nrmse(outcome.result.object, well_behaved.result.object, sample.lit).loose < SAME
    assert outcome.error(sample).c < 0.1


def assert_whole(outcome: Outcome, well_behaved: Outcome, sample: ScannedSample) -> None:
    """Every frame is there, at its place, and the object is that of positions that come in good order."""
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    assert_same_object(outcome, well_behaved, sample)


@pytest.mark.slow
def test_positions_long_before_the_first_frame(
    pipeline: Pipeline, sample: ScannedSample, well_behaved: Outcome
) -> None:
    run = PositionRun("early", sample.positions_m)
    pipeline.publish(run.documents())
    pipeline.until(lambda: "early" not in pipeline.supervisor.progress["positions"].scan)
    pipeline.play(sample, "early")
    outcome = pipeline.outcome("early")
    assert_whole(outcome, well_behaved, sample)
    assert outcome.figures["is_complete"]


@pytest.mark.slow
def test_positions_after_the_last_frame(
    pipeline: Pipeline, sample: ScannedSample, well_behaved: Outcome
) -> None:
    run = PositionRun("late", sample.positions_m)
    pipeline.publish(run.opening)
    pipeline.play(sample, "late")
    pipeline.until(lambda: pipeline.recorded("late") == len(sample))
    assert not (pipeline.scan("late").states("positions") == State.DONE).any()
    pipeline.publish([*run.events(), *run.closing])
    outcome = pipeline.outcome("late")
    assert_whole(outcome, well_behaved, sample)
    assert outcome.figures["is_complete"]


@pytest.mark.slow
def test_positions_that_run_before_and_behind_the_frames(
    pipeline: Pipeline, sample: ScannedSample, well_behaved: Outcome
) -> None:
    run = PositionRun("uneven", sample.positions_m)
    pages = in_pages(run.events(), 35)
    pipeline.publish(run.opening)
    pipeline.publish(next(pages))  # 35 before the first frame

    def frames_and_now_and_then_positions():
        for number, frame in enumerate(sample.frames):
            if number in (50, 51):
                pipeline.until(lambda number=number: pipeline.recorded("uneven") >= number)
                pipeline.publish(next(pages))
            yield frame

    pipeline.play_frames(frames_and_now_and_then_positions(), "uneven", n_frames=len(sample))
    pipeline.publish(run.closing)
    outcome = pipeline.outcome("uneven")
    assert_whole(outcome, well_behaved, sample)


def test_positions_in_any_order(pipeline: Pipeline, sample: ScannedSample, well_behaved: Outcome) -> None:
    run = PositionRun("permuted", sample.positions_m)
    order = np.random.default_rng(0).permutation(len(sample))
    pipeline.publish([*run.opening, *run.events(order), *run.closing])
    pipeline.play(sample, "permuted")
    outcome = pipeline.outcome("permuted")
    assert_whole(outcome, well_behaved, sample)


@pytest.mark.slow
def test_positions_twice_and_once_with_another_value(
    pipeline: Pipeline, sample: ScannedSample, well_behaved: Outcome
) -> None:
    run = PositionRun("twice", sample.positions_m)
    elsewhere = run.event_at(7, sample.positions_m[7] + 1e-6)
    pipeline.publish([*run.opening, *run.events(), *run.events(range(20)), elsewhere, *run.closing])
    pipeline.play(sample, "twice")
    outcome = pipeline.outcome("twice")
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    counters = outcome.scan.counters("positions").as_dict()
    assert (counters["duplicates"], counters["conflicts"]) == (21, 1)
    assert outcome.figures["position_conflicts"] == 1
    assert_same_object(outcome, well_behaved, sample)


def test_five_per_cent_without_position_are_named(
    pipeline: Pipeline, sample: ScannedSample, well_behaved: Outcome
) -> None:
    missing = [4, 23, 42, 67, 88]
    run = PositionRun("holes", sample.positions_m)
    numbers = sorted(set(range(len(sample))) - set(missing))
    pipeline.publish([*run.opening, *run.events(numbers), *run.closing])
    pipeline.play(sample, "holes")
    outcome = pipeline.outcome("holes")
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    assert outcome.figures["frames_without_position"] == 5
    assert outcome.figures["incomplete"] == "no position for 5 frames (4, 23, 42, 67 and 1 more)"
    assert not outcome.figures["is_complete"]
    assert outcome.result.frame_numbers.tolist() == numbers
    assert_same_object(outcome, well_behaved, sample)


@pytest.mark.slow
@pytest.mark.parametrize("is_nan", [True, False])
def test_a_position_that_is_no_number_is_counted_and_its_frame_named(
    pipeline: Pipeline, sample: ScannedSample, is_nan: bool
) -> None:
    series = f"no-number-{is_nan}"
    positions_m = sample.positions_m.copy()
    positions_m[10] = np.nan if is_nan else (np.inf, 0.0)
    pipeline.publish(PositionRun(series, positions_m).documents())
    pipeline.play(sample, series)
    outcome = pipeline.outcome(series)
    outcome.assert_accounted(recorded=len(sample))
    assert outcome.scan.counters("positions")["rejected"] == 1
    assert outcome.figures["incomplete"] == "no position for 1 frame (10)"
    assert outcome.error(sample).c < 0.1


def test_a_scan_without_positions_is_recorded_and_says_so(pipeline: Pipeline, sample: ScannedSample) -> None:
    pipeline.play(sample, "nowhere")
    outcome = pipeline.outcome("nowhere")
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    assert outcome.result is None
    assert outcome.figures["incomplete"].startswith("no position for 100 frames (0-")


def test_positions_far_outside_what_was_scanned_so_far_grow_the_object(
    pipeline: Pipeline, sample: ScannedSample
) -> None:
    far_px = 300
    geometry = pipeline.supervisor.run.config.geometry.geometry()
    positions_m = sample.positions_m - 20 * geometry.object_pixel_m
    positions_m[-1] += far_px * geometry.object_pixel_m
    pipeline.publish(PositionRun("far", positions_m).documents())
    pipeline.play(sample, "far")
    outcome = pipeline.outcome("far")
    outcome.assert_accounted(recorded=len(sample))
    assert outcome.figures["is_complete"]
    bounds, last = outcome.result.bounds, geometry.to_pixels(positions_m[-1]).round().astype(int)
    assert (bounds.top, bounds.left) == (-20, -20)
    assert (bounds.bottom, bounds.right) == tuple(last + geometry.n_pixels)
