"""Weights that are tuned to the sample while it is scanned: which frames get them, and who waits."""

from concurrent.futures import Executor, Future

import numpy as np
import pytest

from operators.network.predictor import Predictor
from stream.record.account import account
from stream.record.probe import publish_probe
from stream.record.scan import Scan, State
from stream.record.tuned_weights import count_models, version_path
from stream.stages.inference import worker
from stream.stages.inputs import Optics
from stream.stages.loop import WorkerLoop
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.inference_bench import InferenceBench, tune
from tests.helpers.stream.scans import DETECTOR_PLANE, close, make_scan, record, states


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return InferenceBench(tmp_path_factory.mktemp("inference"))


class ByHand(Executor):
    """A thread that works only when told to."""

    def __init__(self):
        self.jobs = []

    def submit(self, job, *arguments):
        future = Future()
        self.jobs.append((future, job, arguments))
        return future

    def work(self):
        for future, job, arguments in self.jobs:
            future.set_result(job(*arguments))
        self.jobs.clear()


class AtOnce(Executor):
    """A thread that has always done its work already."""

    def submit(self, job, *arguments):
        future = Future()
        future.set_result(job(*arguments))
        return future


@pytest.fixture
def builder(monkeypatch):
    """The thread that makes weights ready, by hand."""
    it = ByHand()
    monkeypatch.setattr(worker, "ThreadPoolExecutor", lambda _: it)
    return it


def test_no_frame_waits_while_tuned_weights_are_made_ready_and_the_columns_tell_which_it_got(
    tmp_path, bench, builder
):
    scan = make_scan(tmp_path)
    loop = WorkerLoop(bench.stage(), tmp_path, Clock())
    loop.turn()
    card = tune(scan)
    loop.turn()
    assert len(builder.jobs) == 1, "at once, not with the next frame"
    for start in (0, 8):
        record(scan, np.arange(start, start + 8), bench.frames[start : start + 8])
        loop.turn()
    assert (states(scan, "inference") == State.DONE).all()
    assert len(builder.jobs) == 1
    builder.work()
    record(scan, np.arange(16, 24), bench.frames[16:24])
    loop.turn()
    models = {bench.card.model_id: 16, card.model_id: 8}
    assert count_models(Scan(scan.folder), np.arange(24)) == models
    assert not builder.jobs


def test_a_scan_ends_while_tuned_weights_are_made_ready_and_the_next_begins_without_them(
    tmp_path, bench, builder
):
    scan = make_scan(tmp_path)
    loop = WorkerLoop(bench.stage(), tmp_path, Clock())
    loop.turn()
    tune(scan)
    record(scan, np.arange(8), bench.frames[:8])
    loop.turn()
    close(scan, "subscriber")
    loop.turn()
    assert account(Scan(scan.folder), "inference").is_complete
    builder.work()
    again = make_scan(tmp_path, "0001-next")
    record(again, np.arange(8), bench.frames[:8])
    loop.turn()
    loop.turn()
    assert count_models(Scan(again.folder), np.arange(8)) == {bench.card.model_id: 8}, "a new sample"


def test_after_a_restart_the_first_batch_gets_the_weights_tuned_before(tmp_path, bench):
    scan = make_scan(tmp_path)
    card = tune(scan)
    record(scan, np.arange(8), bench.frames[:8])
    WorkerLoop(bench.stage(), tmp_path, Clock()).turn()
    assert count_models(Scan(scan.folder), np.arange(8)) == {card.model_id: 8}


@pytest.mark.parametrize("how", ["probe", "weights"])
def test_what_was_found_or_tuned_during_a_scan_has_run_before_a_frame_needs_it(
    tmp_path, bench, how, monkeypatch
):
    warm, ran, warm_up, submit = [], [], Predictor.warm_up, Predictor.submit
    monkeypatch.setattr(Predictor, "warm_up", lambda self: (warm_up(self), warm.append(self)))
    monkeypatch.setattr(
        Predictor, "submit", lambda self, it: (ran.append((self, self in warm)), submit(self, it))[1]
    )
    monkeypatch.setattr(worker, "ThreadPoolExecutor", lambda _: AtOnce())
    changes = {"optics": Optics(DETECTOR_PLANE)} if how == "probe" else {}
    scan = make_scan(tmp_path)
    loop = WorkerLoop(bench.stage(**changes), tmp_path, Clock())
    loop.turn()
    if how == "probe":
        publish_probe(scan, bench.scanned.probe)
    else:
        tune(scan)
    for start in (0, 8):
        record(scan, np.arange(start, start + 8), bench.frames[start : start + 8])
        loop.turn()
    before, after = warm
    assert [predictor for predictor, is_warm in ran if not is_warm] == warm, "cold only to get warm"
    assert ran[-1] == (after, True)
    assert before is not after


def test_tuned_weights_that_cannot_be_read_change_nothing(tmp_path, bench):
    scan = make_scan(tmp_path)
    version_path(scan, 1).parent.mkdir()
    version_path(scan, 1).write_bytes(b"half a file")
    scan.counters("finetune", writable=True)["version"] = 1
    record(scan, np.arange(8), bench.frames[:8])
    loop = WorkerLoop(bench.stage(), tmp_path, Clock())
    loop.turn()
    loop.finish()
    assert count_models(Scan(scan.folder), np.arange(8)) == {bench.card.model_id: 8}
