"""Live and offline use the same operators, so the same frames become the same object."""

import h5py
import numpy as np
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
    for result in (well_behaved.result, offline):
        is_dark = result.photons <= 0.05 * (np.abs(result.probe) ** 2).sum(axis=0).max()
        assert 0 < is_dark.mean() < 0.5
        assert (result.object[is_dark] == 1).all(), "ground that no frame lit"


def test_a_live_result_is_written_for_ptychodus_where_the_configuration_says_so(
    well_behaved: Outcome,
) -> None:
    with h5py.File(well_behaved.figures["product"]) as product:
        np.testing.assert_array_equal(product["object"][0], well_behaved.result.object)
        assert product["probe_position_indexes"][...].tolist() == well_behaved.result.frame_numbers.tolist()
        assert product["loss_values"][-1] == pytest.approx(well_behaved.figures["amplitude_error"], rel=0.1)
