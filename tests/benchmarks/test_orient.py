from dataclasses import replace

import numpy as np
import pytest

from launch.offline.orient import orient
from launch.offline.recorded import open_recorded
from operators.orientation.turn import Turn
from tests.benchmarks.orient import SIEMENS, Version
from tests.helpers.recorded_data import needs_shared_data


@needs_shared_data
@pytest.mark.slow
def test_a_recorded_scan_says_how_detector_and_stage_were_mounted_and_where_the_beam_is() -> None:
    version = Version(Turn(True, (1, -1)), Turn(False, (-1, 1)), (5, -8))
    with open_recorded(str(SIEMENS)) as opened:
        frames = np.asarray(opened.frames[:])
        found = orient(version.applied(replace(opened, frames=frames, preprocess=None)), n_frames=240)
    assert found.orientation.turn == version.wanted
    assert found.orientation.is_certain
    assert found.orientation.sign_from == "probe"
    # the beam meets this detector at (64.0, 65.4), which the turn exchanges
    assert found.centre == pytest.approx((65.4 + 5, 64.0 - 8), abs=0.5)
    assert found.orientation.defocus_m(found.geometry) == pytest.approx(0.85e-3, rel=0.1)
