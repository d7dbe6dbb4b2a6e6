"""A scan that another machine refines: a folder of its own, keys, TCP, a line that is cut, and its death."""

from pathlib import Path

import pytest

from tests.helpers.letter import ScannedSample
from tests.helpers.other_machine import lent_scan

pytestmark = [pytest.mark.slow, pytest.mark.alone]

MOST_TO_RESUME_S = 1.0  # until the object has further frames: they are fetched, refined and published


@pytest.mark.timeout(300)
def test_another_machine_refines_survives_a_cut_and_may_vanish(
    run_folder: Path, demo_sample: ScannedSample
) -> None:
    outcome, trouble, n_restarts = lent_scan(run_folder, demo_sample)
    assert n_restarts == 0
    outcome.assert_accounted(recorded=len(demo_sample))
    assert outcome.figures["is_complete"]
    assert trouble.n_at_death > trouble.cut_at  # those after the cut, too
    assert outcome.scan.count("refinement", "version") > 2
    assert outcome.error(demo_sample).c < 0.3
    assert trouble.resumed_s < MOST_TO_RESUME_S
