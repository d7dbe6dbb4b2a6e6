"""Refinement on another machine makes the object that it makes here, whatever the line and the workers do."""

import numpy as np
import pytest

from stream.record.scan import State
from stream.remote.lender import GONE_S
from tests.helpers.stream.refined_elsewhere import Bench, Scanned, assert_same_object


@pytest.fixture
def scanned(tmp_path):
    return Scanned(tmp_path / "run")


def whole(scanned):
    scanned.take(np.arange(len(scanned.frames)))
    scanned.end()
    return scanned


@pytest.fixture
def here(tmp_path):
    return whole(Scanned(tmp_path / "here")).refine_here()


def test_the_object_is_that_of_refinement_beside_the_detector(scanned, here):
    bench = Bench(whole(scanned))
    there = bench.worker()
    bench.until(lambda: bench.is_closed, there)
    assert_same_object(scanned.scan, here)
    assert (scanned.scan.states("refinement") == State.DONE).all()
    assert not (scanned.scan.folder / "refined").exists()  # one file, as it is left here
    bench.until(lambda: not list((scanned.folder / "w").glob("scan-*")), there)
