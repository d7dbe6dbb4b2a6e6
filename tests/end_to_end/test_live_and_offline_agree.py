"""Live and offline use the same operators, so the same frames become the same object."""

import pytest

from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import open_recorded
from operators.metrics.errors import nrmse
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import OFFLINE, Outcome


def test_offline_makes_the_same_object_of_the_recorded_scan(
    well_behaved: Outcome, sample: ScannedSample
) -> None:
    assert well_behaved.figures["epochs"] == pytest.approx(OFFLINE.epochs, abs=0.5)
    with open_recorded(str(well_behaved.scan.folder)) as recorded:
        offline = reconstruct(recorded, OFFLINE, preprocess=recorded.preprocess())
    assert offline.bounds == well_behaved.result.bounds
    assert nrmse(well_behaved.result.object, offline.object, sample.lit).loose <= 0.02
