from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def short_calibration() -> Iterator[None]:
    """Trainings in this process calibrate on few scans; to compile a network takes longer than those do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("operators.network.predictor.has_openvino", lambda: False)
        patch.setattr("launch.training.calibrate.OBJECTS_PER_FAMILY", 1)
        patch.setattr("launch.training.calibrate.N_DOSES", 1)
        yield
