"""What refinement hands over of its object while it grows."""

import shutil
from itertools import count

import numpy as np
import pytest

from operators.optics.forward import intensities
from stream.record import snapshot as snapshots
from stream.record.scan import Scan, State
from stream.record.snapshot import FILE_NAME, read_news, read_snapshot
from stream.stages.config import RefinementConfig
from stream.stages.refinement.worker import Refinement
from tests.helpers.stream.scans import Sample, close, make_scan, place, record

APART_PX = 300  # of two places that are scanned one after the other


class Bench:
    """A scan of two places, each a small raster, and refinement of it without a network."""

    def __init__(self, folder, **settings):
        self.scanned, self.scan = Sample(n_side=4), make_scan(folder / "scans")
        patterns = np.random.default_rng(0).poisson(intensities(self.scanned.probe, self.scanned.patches))
        frames = np.fft.fftshift(patterns, axes=(1, 2)).astype("<u2")
        n = len(self.scanned)
        record(self.scan, np.arange(2 * n), np.concatenate([frames, frames]))
        place(
            self.scan,
            np.arange(2 * n),
            np.concatenate([self.scanned.corners, self.scanned.corners + APART_PX]),
        )
        self.here, self.there = np.arange(n), np.arange(n, 2 * n)
        settings = {"batch_size": 8, **settings}
        config = RefinementConfig(first_frames=4, publish_s=1e-9, device="numpy", **settings)
        self.stage = Refinement(
            config,
            self.scanned.optics(folder),
            n_modes=1,
            scale_probe=False,
            uses_network=False,
            starts_over=False,
            clock=count(1.0).__next__,  # every look is later: one step, and it is published
        )
        self.open()

    def open(self):
        self.work = self.stage.open(Scan(self.scan.folder))

    def refine(self, n_steps):
        for _ in range(n_steps):
            self.work.idle(deadline=0.0)


def assert_is_what_is_handed_over(bench):
    expected, found = bench.work.object.engine.snapshot(), read_snapshot(bench.scan.folder)
    assert (found.bounds, found.n_updates) == (expected.bounds, expected.n_updates)
    np.testing.assert_array_equal(found.illumination, expected.illumination)
    np.testing.assert_allclose(found.object, expected.object, atol=1e-5)
    np.testing.assert_array_equal(found.probe, expected.probe)


def test_only_tiles_that_were_refined_since_are_written_and_together_they_are_the_object(tmp_path):
    bench = Bench(tmp_path, probe_step=0, batch_size=2)
    bench.work.handle(bench.here)
    bench.refine(3)
    assert_is_what_is_handed_over(bench)
    bench.work.handle(bench.there)
    bench.refine(1)
    assert_is_what_is_handed_over(bench)
    for _ in range(6):
        before = read_news(bench.scan.folder)
        bench.refine(1)
        news = read_news(bench.scan.folder, before.version)
        assert 0 < len(news.tiles) < news.n_tiles
        assert_is_what_is_handed_over(bench)


def test_what_changes_everywhere_is_written_everywhere(tmp_path):
    bench = Bench(tmp_path, epochs=16)
    bench.work.handle(np.concatenate([bench.here, bench.there]))
    close(bench.scan, "subscriber", "positions")
    bench.refine(70)  # to the end, with the object levelled on the way
    news = read_news(bench.scan.folder)
    object_, illumination = bench.work.object.engine.part(news.state.bounds)
    np.testing.assert_array_equal(read_snapshot(bench.scan.folder).illumination, illumination)
    found = read_snapshot(bench.scan.folder).object
    lit = illumination > 0
    assert np.abs(found - object_)[lit].max() < 0.1, "but for the ramp of a probe that goes on"


def test_a_scan_that_lacks_a_column_of_today_is_gone_on_with(tmp_path):
    bench = Bench(tmp_path)
    bench.work.handle(bench.here)
    bench.refine(4)
    shutil.rmtree(bench.scan.folder / "columns" / "visits")
    bench.open()
    bench.refine(1)
    assert bench.scan.has("visits")


def test_a_restart_goes_on_from_the_tiles_and_the_end_is_one_file(tmp_path):
    bench = Bench(tmp_path, probe_step=0)
    bench.work.handle(bench.here)
    bench.refine(4)
    before = read_snapshot(bench.scan.folder)
    bench.open()
    np.testing.assert_allclose(bench.work.object.engine.snapshot().object, before.object, atol=1e-6)
    bench.refine(2)
    assert_is_what_is_handed_over(bench)
    bench.work.close()
    assert (bench.scan.folder / FILE_NAME).exists()
    assert not (bench.scan.folder / snapshots.FOLDER).exists()
    assert_is_what_is_handed_over(bench)


@pytest.mark.parametrize("is_closed", [True, False])
def test_who_hands_a_scan_over_leaves_what_it_goes_on_from(tmp_path, is_closed):
    bench = Bench(tmp_path)
    bench.work.handle(bench.here)
    bench.refine(2)
    bench.work.close() if is_closed else bench.work.hand_over()
    assert read_snapshot(bench.scan.folder).n_updates == bench.work.object.engine.n_updates


def test_every_frame_takes_part_however_few_epochs_there_are(tmp_path):
    bench = Bench(tmp_path, batch_size=4, epochs=1)
    numbers = np.concatenate([bench.here, bench.there])
    bench.work.handle(numbers)
    bench.refine(4)
    close(bench.scan, "subscriber", "positions")
    for _ in range(100):
        if not bench.work.idle(deadline=0.0):
            break
    bench.work.close()
    assert (Scan(bench.scan.folder).states("refinement", numbers) == State.DONE).all()
    assert bench.work.object.engine.epoch <= 2
