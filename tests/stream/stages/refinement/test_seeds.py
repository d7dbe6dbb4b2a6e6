"""The gate between network and refinement, where frames come in and pictures go out."""

import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.engine.refiner import Refiner
from operators.optics.coherence import flown_probe
from operators.optics.forward import intensities
from operators.patches import extract_patches
from stream.record.error_curve import read_error_curve
from stream.record.probe import publish_probe
from stream.record.scan import Scan, State
from stream.record.snapshot import read_snapshot
from stream.stages.config import RefinementConfig
from stream.stages.inputs import Optics
from stream.stages.refinement import growing
from stream.stages.refinement.worker import Refinement
from stream.stages.stage import UnusableScanError
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import (
    DETECTOR_PLANE,
    N_PIXELS,
    Sample,
    close,
    infer,
    make_scan,
    place,
    record,
)

N = 16  # frames


@pytest.fixture
def bench(tmp_path, on_both_kinds_of_arrays):
    return Bench(tmp_path)


class Bench:
    """A scan whose frames are as the sample makes them, and a stage that has not begun."""

    def __init__(self, folder):
        self.folder, self.scanned, self.numbers = folder, Sample(n_side=4), np.arange(N)
        patterns = np.random.default_rng(0).poisson(intensities(self.scanned.probe, self.scanned.patches))
        self.scan = make_scan(folder / "scans")
        record(self.scan, self.numbers, np.fft.fftshift(patterns, axes=(1, 2)).astype("<u2"))
        place(self.scan, self.numbers, self.scanned.corners)

    def open(self, optics=None, starts_over=False, n_modes=1):
        """Return the work of a new stage on the scan."""
        stage = Refinement(
            RefinementConfig(probe_step=0, first_frames=4, publish_s=1e-9, device="numpy"),
            optics or self.scanned.optics(self.folder),
            n_modes=n_modes,
            scale_probe=False,
            uses_network=True,
            clock=Clock(),
            starts_over=starts_over,
        )
        return stage.open(self.scan)

    def take(self, patches, **told):
        """Return the work of the stage after it has taken all frames with these patches."""
        infer(self.scan, self.numbers, patches)
        work = self.open(**told)
        work.handle(self.numbers)
        return work

    def windows(self, work):
        return to_numpy(work.object.engine.windows(self.scanned.corners))


def test_a_seed_that_explains_the_frames_is_where_refinement_starts(bench):
    work = bench.take(bench.scanned.patches)
    assert work.counts()["seeds_refused"] == 0
    windows = bench.windows(work)
    bright = bench.scanned.illumination > 0.5 * bench.scanned.illumination.max()
    truth = extract_patches(bench.scanned.truth, bench.scanned.corners - bench.scanned.origin, N_PIXELS)
    product = (windows * truth.conj())[:, bright]
    assert np.abs(product.sum()) > 0.99 * np.sqrt(
        (np.abs(windows[:, bright]) ** 2).sum() * (np.abs(truth[:, bright]) ** 2).sum()
    )


def test_a_seed_that_harms_is_refused_and_refinement_starts_flat(bench):
    rng = np.random.default_rng(1)
    harmful = np.exp(1j * rng.uniform(-np.pi, np.pi, bench.scanned.patches.shape)).astype(np.complex64)
    work = bench.take(harmful)
    assert work.counts()["seeds_refused"] == N
    assert (bench.windows(work) == 1).all()


def test_how_often_each_frame_was_visited_is_published_with_the_picture(bench):
    work = bench.take(bench.scanned.patches)
    work.idle(deadline=Clock()() - 1)  # one batch, which is all frames, and the picture of it
    scan = Scan(bench.scan.folder)
    visits = scan.column("visits").read(bench.numbers)
    assert visits.sum() == work.object.engine.n_updates > 0
    assert ((visits > 0) == (scan.states("refinement") == State.DONE)).all()


def test_a_probe_found_in_the_scan_is_taken_as_it_is(bench):
    publish_probe(bench.scan, 1.1 * bench.scanned.probe)
    work = bench.take(bench.scanned.patches, optics=Optics(DETECTOR_PLANE))
    np.testing.assert_allclose(to_numpy(work.object.engine.probe), 1.1 * bench.scanned.probe, rtol=1e-5)


def likeness(a, b):
    return np.abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b))


def test_a_sparse_scan_is_started_again_from_all_patches_once_all_frames_are_there(bench):
    work = bench.take(bench.scanned.patches, starts_over=True)
    for _ in range(20):
        work.idle(deadline=-np.inf)
    upright = bench.windows(work)
    torn = work.object.engine.snapshot()
    torn.object[: len(torn.object) // 2] *= -1  # what was refined before its neighbours came keeps its phase
    work.object.engine.adopt(torn.object, torn.bounds, torn.probe)
    assert likeness(bench.windows(work), upright) < 0.8
    n_before = work.counts()["updates"]
    close(bench.scan, "subscriber", "positions", "inference")
    work.idle(deadline=-np.inf)
    assert work.counts()["updates"] < n_before
    assert likeness(bench.windows(work), upright) > 0.95
    n_now = work.counts()["updates"]
    work.idle(deadline=-np.inf)
    assert work.counts()["updates"] > n_now, "it starts again once"


def test_a_scan_that_the_network_does_not_explain_is_not_started_again(bench):
    rng = np.random.default_rng(1)
    harmful = np.exp(1j * rng.uniform(-np.pi, np.pi, bench.scanned.patches.shape)).astype(np.complex64)
    work = bench.take(harmful, starts_over=True)
    for _ in range(20):
        work.idle(deadline=-np.inf)
    n_before = work.counts()["updates"]
    close(bench.scan, "subscriber", "positions", "inference")
    work.idle(deadline=-np.inf)
    assert work.counts()["updates"] > n_before


def test_refining_begins_when_there_are_enough_frames(bench):
    infer(bench.scan, bench.numbers, bench.scanned.patches)
    work = bench.open()
    work.handle(np.arange(3))
    assert not work.idle(deadline=-np.inf)
    assert work.counts() == {}
    work.handle(np.arange(3, 5))
    assert work.idle(deadline=-np.inf)
    assert work.object.engine.n_frames == 5, "those that waited too"


def test_a_scan_of_few_frames_is_refined_once_no_more_will_come(bench):
    infer(bench.scan, bench.numbers, bench.scanned.patches)
    work = bench.open()
    work.handle(np.arange(2))
    close(bench.scan, "subscriber", "positions", "inference")
    assert work.idle(deadline=-np.inf)
    assert work.object.engine.n_frames == 2


def test_a_restart_takes_up_the_last_picture_and_the_frames_in_it(bench):
    before = bench.take(bench.scanned.patches)
    before.idle(deadline=-np.inf)
    after = bench.open()
    assert after.counts() == before.counts()
    np.testing.assert_allclose(bench.windows(after), bench.windows(before), atol=1e-5)
    after.idle(deadline=-np.inf)
    assert after.counts()["updates"] > before.counts()["updates"]


def test_after_a_restart_some_frames_tell_how_far_the_network_is_to_be_believed(bench, monkeypatch):
    rng = np.random.default_rng(1)
    harmful = np.exp(1j * rng.uniform(-np.pi, np.pi, bench.scanned.patches.shape)).astype(np.complex64)
    before = bench.take(harmful)
    before.idle(deadline=-np.inf)
    monkeypatch.setattr(growing, "BATCH_SIZE", N // 8)
    monkeypatch.setattr(growing, "_BATCHES_TO_JUDGE", 2)
    after = bench.open()
    assert after.counts() == before.counts()
    assert after.counts()["seeds_refused"] == N
    np.testing.assert_allclose(bench.windows(after), bench.windows(before), atol=1e-5)


def refine_epochs(work, n_epochs):
    """Refine until so many more errors are known, and publish."""
    wanted = len(work.object.engine.error_history) + n_epochs
    for _ in range(100):
        if len(work.object.engine.error_history) == wanted:
            work.close()
            return
        work.idle(deadline=-np.inf)
    raise AssertionError(f"{n_epochs} epochs took more than 100 steps")


def test_the_error_of_every_epoch_is_on_record_and_a_restart_goes_on_with_it(bench):
    before = bench.take(bench.scanned.patches)
    refine_epochs(before, 3)
    curve = read_error_curve(bench.scan.folder)
    np.testing.assert_array_equal(curve["error"], before.object.engine.error_history)
    assert (curve["n_frames"] == N).all()
    refine_epochs(bench.open(), 1)
    longer = read_error_curve(bench.scan.folder)
    np.testing.assert_array_equal(longer[:3], curve)
    assert len(longer) == 4
    assert longer["epoch"][3] > curve["epoch"][2]


def test_an_object_that_is_started_again_does_not_take_its_first_errors_from_the_record(bench):
    work = bench.take(bench.scanned.patches, starts_over=True)
    refine_epochs(work, 2)
    first = read_error_curve(bench.scan.folder)
    close(bench.scan, "subscriber", "positions", "inference")
    work.idle(deadline=-np.inf)
    assert len(work.object.engine.error_history) < 2, "the engine is a new one"
    refine_epochs(work, 1)
    curve = read_error_curve(bench.scan.folder)
    np.testing.assert_array_equal(curve[:2], first)
    assert len(curve) > 2


def test_frames_that_tell_no_probe_are_waited_for_and_then_cost_this_scan_alone(bench, caplog):
    close(bench.scan, "subscriber")
    infer(bench.scan, bench.numbers, bench.scanned.patches)
    work = bench.open(optics=Optics(DETECTOR_PLANE))
    work.handle(bench.numbers[:8])
    assert work.object is None
    assert "needs at least 24 overlapping frames, got 8" in caplog.text
    assert bench.scan.count("refinement", "wanted") == 16
    for stage in ("positions", "inference"):
        close(bench.scan, stage)
    with pytest.raises(UnusableScanError, match="needs at least 24 overlapping frames, got 16"):
        work.handle(bench.numbers[8:])


def test_where_it_is_shown_is_published_with_the_picture_and_outlives_a_restart(bench):
    work = bench.take(bench.scanned.patches)
    engine = work.object.engine
    wrong = np.ones_like(engine.snapshot().object)
    for _ in range(2):  # an object that explains less than the mosaic
        engine.step(1)
        engine.adopt(wrong, engine.snapshot().bounds, bench.scanned.probe)
    work.close()
    withheld = read_snapshot(bench.scan.folder).withheld
    assert len(withheld) > 1
    np.testing.assert_array_equal(bench.open().object.gate.withheld, withheld)


def test_a_state_that_explains_less_than_the_closing_began_with_is_not_published(bench):
    work = bench.take(bench.scanned.patches)
    close(bench.scan, "subscriber", "positions", "inference")
    refine_epochs(work, 6)
    began = read_snapshot(bench.scan.folder)
    engine = work.object.engine
    engine.adopt(np.ones_like(began.object), began.bounds, began.probe)
    engine.step(1)
    work.close()
    assert read_snapshot(bench.scan.folder).n_updates == began.n_updates
    engine.adopt(began.object, began.bounds, began.probe)
    for _ in range(20):
        engine.step(1, fraction=0.1)
    work.close()
    assert read_snapshot(bench.scan.folder).n_updates > began.n_updates


def test_an_object_from_the_network_takes_small_steps_between_levellings_and_a_flat_one_full_ones(
    bench, monkeypatch
):
    told = []
    step = Refiner.step

    def noted(self, n_batches=1, *, fraction=1.0, level_every=None):
        told.append((fraction, level_every))
        return step(self, n_batches, fraction=fraction, level_every=level_every)

    monkeypatch.setattr(Refiner, "step", noted)
    bench.take(bench.scanned.patches).idle(deadline=-np.inf)
    assert told == [(RefinementConfig().seeded_step, growing.LEVEL_EVERY)]
    rng = np.random.default_rng(1)
    harmful = np.exp(1j * rng.uniform(-np.pi, np.pi, bench.scanned.patches.shape)).astype(np.complex64)
    (bench.folder / "other").mkdir()
    Bench(bench.folder / "other").take(harmful).idle(deadline=-np.inf)
    assert told[1:] == [(1.0, None)]


def test_modes_start_as_those_of_a_probe_that_moves_as_its_captures_say(bench):
    pixel_m = bench.scanned.optics(bench.folder).geometry.object_pixel_m
    bench.scan.column("travel_m", writable=True).write(bench.numbers, np.array([0.0, 4 * pixel_m]))
    probe = bench.open(n_modes=3)._first_probe(bench.numbers)
    expected = flown_probe(bench.scanned.probe, (0.0, 4.0), 3)
    powers = np.square(np.abs(probe)).sum(axis=(1, 2))
    np.testing.assert_allclose(powers, np.square(np.abs(expected)).sum(axis=(1, 2)), rtol=1e-3)
    assert powers[1] > 1e-3 * powers[0]
