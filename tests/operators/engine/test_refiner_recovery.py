"""A refinement that has gone wrong, or was interrupted, goes on from a good state."""

import numpy as np
import pytest

from operators.engine.config import RefinerConfig
from operators.engine.epie import update
from operators.engine.refiner import Refiner
from operators.geometry import Bounds
from tests.helpers.operators.scenes import N_PIXELS, append_all, make_scene, run_epochs, run_to, wrong_probe

HELD = RefinerConfig(probe_step=0)


@pytest.fixture(scope="module")
def scene():
    return make_scene()


def nans(object_):
    object_[40, 40] = np.nan


def explodes(object_):
    object_ *= 10


class Spoilable:
    """The reference, but one update does something to the object afterwards."""

    def __init__(self):
        self.change = None
        self.steps_taken = []

    def __call__(self, object_, probe, batch, steps, sums, *, mask=None):
        errors = update(object_, probe, batch, steps, sums, mask=mask)
        self.steps_taken.append(steps.object_step)
        change, self.change = self.change, None
        if change is not None:
            change(object_)
        return errors


class TestDivergence:
    @pytest.fixture
    def run_update(self):
        return Spoilable()

    @pytest.fixture
    def refiner(self, scene, run_update):
        refiner = Refiner(HELD, scene.probe, run_update=run_update)
        append_all(refiner, scene)
        run_epochs(refiner, 5)
        return refiner

    @pytest.mark.parametrize("change", [nans, explodes])
    def test_the_last_good_state_comes_back_and_refinement_goes_on(self, refiner, scene, run_update, change):
        before = scene.error(refiner.snapshot())
        run_update.change = change
        run_epochs(refiner, 7)
        snapshot = refiner.snapshot()
        assert snapshot.n_divergences == 1
        assert snapshot.is_finite
        assert scene.error(snapshot) < 1.1 * before
        assert scene.error(run_to(refiner, 25)) < before
        assert refiner.n_divergences == 1

    def test_steps_are_halved(self, refiner, run_update):
        run_update.change = nans
        run_epochs(refiner, 7)
        refiner.step()
        assert run_update.steps_taken[0] == 1
        assert run_update.steps_taken[-1] == 0.5

    def test_without_a_good_state_refinement_starts_again(self, scene, run_update):
        refiner = Refiner(HELD, scene.probe, run_update=run_update)
        append_all(refiner, scene)
        run_update.change = nans
        run_epochs(refiner, 20)
        snapshot = refiner.snapshot()
        assert snapshot.n_divergences >= 1
        assert scene.error(snapshot) < 0.3

    def test_new_frames_do_not_look_like_divergence(self, scene):
        refiner = Refiner(HELD, scene.probe)
        append_all(refiner, scene, slice(0, 24))
        run_epochs(refiner, 20)
        append_all(refiner, scene, slice(24, None))
        run_epochs(refiner, 20)
        assert refiner.n_divergences == 0

    def test_a_good_state_of_a_smaller_canvas_keeps_the_new_ground(self, scene, run_update):
        refiner = Refiner(HELD, scene.probe, run_update=run_update)
        append_all(refiner, scene, slice(0, 24))
        run_epochs(refiner, 10)
        refiner.append([1000], scene.patterns[:1], scene.corners[:1] + 300.0)
        run_update.change = nans
        run_epochs(refiner, refiner.epoch + 1.5)
        snapshot = refiner.snapshot()
        assert snapshot.n_divergences == 1
        assert snapshot.is_finite
        assert snapshot.bounds.contains(Bounds.of_windows(scene.corners[:1] + 300, N_PIXELS))


class TestRestoring:
    def test_refinement_goes_on_where_the_snapshot_was_taken(self, scene):
        first = Refiner(RefinerConfig(), scene.probe)
        append_all(first, scene)
        snapshot = run_to(first, 10)
        second = Refiner(RefinerConfig(), wrong_probe())
        append_all(second, scene)
        second.restore(snapshot)
        again = second.snapshot()
        np.testing.assert_array_equal(again.object, snapshot.object)
        np.testing.assert_array_equal(again.probe, snapshot.probe)
        assert (again.epoch, again.error_history) == (snapshot.epoch, snapshot.error_history)
        assert scene.error(run_to(second, 20)) < scene.error(snapshot)
        assert second.n_divergences == 0

    def test_frames_that_come_after_it_do_not_look_like_divergence(self, scene):
        first = Refiner(HELD, scene.probe)
        append_all(first, scene, slice(0, 32))
        snapshot = run_to(first, 10)
        second = Refiner(HELD, scene.probe)
        append_all(second, scene, slice(0, 32))
        second.restore(snapshot)
        assert second.error == pytest.approx(snapshot.error)
        append_all(second, scene, slice(32, None))
        final = run_to(second, 30)
        assert final.n_divergences == 0
        assert scene.error(final) < scene.error(snapshot)

    def test_frames_of_the_snapshot_are_not_new_again(self, scene):
        first = Refiner(HELD, scene.probe)
        append_all(first, scene)
        snapshot = run_to(first, 3)
        second = Refiner(HELD, scene.probe)
        append_all(second, scene)
        second.restore(snapshot)
        assert (second.take_changes().n_visits > 0).sum() == len(scene.corners)

    def test_a_snapshot_does_not_change_with_the_engine(self, scene):
        refiner = Refiner(RefinerConfig(), scene.probe)
        append_all(refiner, scene)
        snapshot = run_to(refiner, 1)
        before = snapshot.object.copy(), snapshot.probe.copy(), snapshot.illumination.copy()
        run_to(refiner, 2)
        for kept, now in zip(before, (snapshot.object, snapshot.probe, snapshot.illumination), strict=True):
            np.testing.assert_array_equal(kept, now)
