"""Network and positions at different paces: frame and position meet by number, so nothing can shear."""

import numpy as np
import pytest

from operators.metrics.errors import nrmse
from stream.record.account import account
from stream.stages.config import LiveConfig
from stream.stages.inputs import ImageOrigin
from stream.stages.loop import WorkerLoop
from stream.stages.stitching.worker import Stitcher
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import Sample, close, make_scan
from tests.helpers.stream.stitcher_client import Watcher

AHEAD = 700
LAYERS = ("object", "sigma", "photons", "source", "path")


@pytest.fixture(scope="module")
def scanned():
    return Sample(n_side=28)


class Pipeline:
    """A scan, and the stitcher that looks at it whenever something has come."""

    def __init__(self, folder, scanned):
        self.scanned, self.n, self.clock = scanned, len(scanned), Clock()
        folder.mkdir()
        self.scan = make_scan(folder / "scans")
        origin = ImageOrigin(optics=scanned.optics(folder), uses_network=True, uses_refinement=False)
        self.stitcher = Stitcher(LiveConfig(), origin, self.clock)
        self.loop = WorkerLoop(self.stitcher, folder / "scans", self.clock)

    def comes(self, stage, numbers):
        self.scanned.fill(self.scan, numbers, stage)
        self.loop.turn()
        self.clock.now += 0.05

    def final_image(self):
        close(self.scan, "subscriber", "positions", "inference")
        for _ in range(40):
            self.loop.turn()
        assert account(self.scan, "stitcher").is_complete
        image = Watcher(self.stitcher).asks()
        assert image.is_final
        return image


def positions_first(pipeline):
    numbers = np.arange(pipeline.n)
    for stage in ("positions", "subscriber", "inference"):
        for some in np.array_split(numbers, 12):
            pipeline.comes(stage, some)


def network_ahead(pipeline):
    """Position i comes when frame i + 700 has been through the network."""
    for number in range(pipeline.n + AHEAD):
        if number < pipeline.n:
            pipeline.scanned.fill(pipeline.scan, number, "subscriber", "inference")
        if number >= AHEAD:
            pipeline.comes("positions", number - AHEAD)


def positions_ahead(pipeline):
    for number in range(pipeline.n + AHEAD):
        if number < pipeline.n:
            pipeline.scanned.fill(pipeline.scan, number, "positions")
        if number >= AHEAD:
            pipeline.scanned.fill(pipeline.scan, number - AHEAD, "subscriber")
            pipeline.comes("inference", number - AHEAD)


def anything_at_any_time(pipeline):
    rng = np.random.default_rng(3)
    orders = {stage: rng.permutation(pipeline.n) for stage in ("subscriber", "positions", "inference")}
    for i in range(0, pipeline.n, 8):
        for stage in rng.permutation(list(orders)):
            pipeline.comes(str(stage), orders[stage][i : i + 8])


@pytest.fixture(scope="module")
def reference(scanned, tmp_path_factory):
    pipeline = Pipeline(tmp_path_factory.mktemp("shear") / "reference", scanned)
    positions_first(pipeline)
    return pipeline.final_image()


def test_positions_first_give_the_object(reference, scanned):
    top, left = reference.origin_px - scanned.origin
    rows, columns = reference.object.shape
    truth = scanned.truth[top : top + rows, left : left + columns]
    assert nrmse(reference.object, truth, reference.coverage).c < 1e-3


@pytest.mark.parametrize("schedule", [network_ahead, positions_ahead, anything_at_any_time])
def test_the_image_does_not_depend_on_who_was_ahead(tmp_path, scanned, reference, schedule):
    pipeline = Pipeline(tmp_path / "run", scanned)
    schedule(pipeline)
    image = pipeline.final_image()
    assert image.origin_px == reference.origin_px
    for layer in LAYERS:
        assert (getattr(image, layer) == getattr(reference, layer)).all(), layer
