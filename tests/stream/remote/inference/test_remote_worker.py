"""A worker on another machine makes what one beside the detector makes, whatever the line loses."""

import time

import numpy as np
import pytest

from stream.record.probe import publish_probe
from stream.record.scan import Scan
from stream.stages.config import NetworkConfig
from stream.stages.inputs import Optics
from tests.helpers.stream.elsewhere import Elsewhere
from tests.helpers.stream.inference_bench import InferenceBench, tune
from tests.helpers.stream.scans import make_scan, record


@pytest.fixture
def bench(tmp_path):
    return InferenceBench(tmp_path)


def recorded(scans, bench):
    scan = make_scan(scans)
    record(scan, np.arange(len(bench.frames)), bench.frames)
    return scan


def elsewhere(tmp_path, scans, bench, optics=None):
    network = NetworkConfig(weights=bench.weights, batch_size=8, device="cpu")
    return Elsewhere(tmp_path / "other machine", scans, network, optics or bench.optics)


def assert_as_here(there, here: Scan):
    """Patch, sigma and model of every frame, by its number, are those of the stage beside the detector."""
    numbers = np.array(sorted(there.share.made))
    patches, sigma, models, good = map(np.array, zip(*(there.share.made[n] for n in numbers), strict=True))
    np.testing.assert_allclose(patches, here.column("patches").read(numbers), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sigma, here.column("sigma").read(numbers), rtol=2e-3)
    np.testing.assert_array_equal(models, here.column("model").read(numbers))
    assert good.all()


def test_patches_are_those_of_the_stage_beside_the_detector(tmp_path, bench):
    here = bench.run(tmp_path / "here")
    scan = recorded(tmp_path / "scans", bench)
    there = elsewhere(tmp_path, tmp_path / "scans", bench)
    there.works_on(scan, np.arange(len(bench.frames)))
    assert_as_here(there, here)
    assert there.share.patch_px == 16


@pytest.mark.parametrize("seed", range(3))
def test_a_line_that_loses_every_third_message_loses_no_frame(tmp_path, bench, seed):
    here = bench.run(tmp_path / "here")
    scan = recorded(tmp_path / "scans", bench)
    there = elsewhere(tmp_path, tmp_path / "scans", bench)
    rng = np.random.default_rng(seed)
    there.loses = lambda: rng.random() < 1 / 3
    there.works_on(scan, np.arange(len(bench.frames)), size=5)
    assert_as_here(there, here)
    assert there.share.n_answers == -(-len(bench.frames) // 5)  # each lease once


def test_a_worker_holds_three_leases_and_asks_for_the_next_when_one_is_taken(tmp_path, bench):
    scan = recorded(tmp_path / "scans", bench)
    there = elsewhere(tmp_path, tmp_path / "scans", bench)
    there.works_on(scan, np.arange(4), size=4)
    there.share.waiting = [(scan.name, np.array([number])) for number in range(4, 16)]
    there.worker.turn = lambda: False  # it is at work on something else for a while
    for _ in range(20):
        there.turn()
    assert len(there.share.waiting) >= 9


def test_a_probe_that_is_found_and_weights_that_are_tuned_reach_the_worker(tmp_path, bench):
    scan, numbers = recorded(tmp_path / "scans", bench), np.arange(len(bench.frames))
    blind = Optics(bench.optics.config)
    there = elsewhere(tmp_path, tmp_path / "scans", bench, blind)
    assert not there.gateway.may_begin(scan.name)
    publish_probe(scan, bench.scanned.probe)
    assert there.gateway.may_begin(scan.name)
    there.works_on(scan, numbers[:8])
    assert_as_here(there, bench.run(tmp_path / "here"))
    tuned = int(tune(scan).model_id, 16)
    # They are made ready by a second thread, while the worker goes on with those it has.
    deadline, models = time.monotonic() + 60.0, set()
    while tuned not in models:
        assert time.monotonic() < deadline
        there.share.made.clear()
        there.works_on(scan, numbers[8:16])
        models |= {int(made[2]) for made in there.share.made.values()}
    there.worker.close()
    assert models <= {int(bench.card.model_id, 16), tuned}


def test_frames_of_the_next_scan_follow_and_nothing_stays_of_the_one_before(tmp_path, bench):
    first, second = (make_scan(tmp_path / "scans", name) for name in ("0000-a", "0001-b"))
    record(first, np.arange(8), bench.frames[:8])
    record(second, np.arange(8), bench.frames[8:16])
    there = elsewhere(tmp_path, tmp_path / "scans", bench)
    there.works_on(first, np.arange(8))
    before = there.share.made.copy()
    there.share.made.clear()
    there.works_on(second, np.arange(8))
    assert len(list((tmp_path / "other machine" / "benches").iterdir())) == 1
    assert all(np.abs(before[n][0] - there.share.made[n][0]).max() > 0 for n in range(8))
    there.worker.close()
    assert not list((tmp_path / "other machine" / "benches").iterdir())
