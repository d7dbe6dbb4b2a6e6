"""What every source of positions has to bear: rows that lack, come twice, late, or are of another run."""

import numpy as np
import pytest

from stream.record.scan import State
from tests.helpers.stream.position_stage import TRUTH_M, Detector
from tests.helpers.stream.position_ways import WAYS

N = 200
OTHER_UM = TRUTH_M[1000 : 1000 + N] * 1e6


@pytest.fixture(params=WAYS)
def way(request, scans, tmp_path):
    made = WAYS[request.param](scans, tmp_path)
    yield made
    made.close()


def chunks_with_faults(seed):
    """Chunks of frames as they arrive, and the frames that never do: 5 % lack, 5 % come twice, many late."""
    rng = np.random.default_rng(seed)
    chunks = np.split(np.arange(N), np.flatnonzero(rng.random(N - 1) < 0.4) + 1)
    fate = rng.random(len(chunks))
    missing = np.concatenate([np.zeros(0, int), *[c for c, f in zip(chunks, fate, strict=True) if f < 0.05]])
    arriving = [c for c, f in zip(chunks, fate, strict=True) if f >= 0.05]
    arriving += [c for c, f in zip(chunks, fate, strict=True) if f > 0.95]
    late = rng.random(len(arriving)) < 0.1
    order = np.argsort(np.arange(len(arriving)) + 8 * late, kind="stable")
    return [arriving[k] for k in order], missing


@pytest.mark.parametrize("seed", range(2))
def test_no_frame_gets_the_position_of_another_and_each_is_accounted_for(way, scans, seed):
    way.begin()
    way.send(np.arange(N), OTHER_UM)
    way.end()
    for _ in range(4):
        way.pass_s(way.config.late_s)
    way.stray(OTHER_UM)
    way.pass_s(way.config.late_s)
    detector = Detector(scans, "a", n_frames=N)
    way.pass_s()
    chunks, missing = chunks_with_faults(seed)
    way.begin()
    for chunk in chunks:
        way.send(chunk, TRUTH_M[chunk] * 1e6)
    way.end()
    way.pass_s()
    detector.close()
    way.pass_s(way.config.late_s)
    way.pass_s(way.config.late_s)
    states, positions_m = detector.states(), detector.positions_m()
    is_done = states == State.DONE
    assert set(np.flatnonzero(states == State.NO_POSITION)) == set(np.flatnonzero(~is_done)) == set(missing)
    np.testing.assert_allclose(positions_m[is_done], TRUTH_M[:N][is_done], atol=1e-12)
    assert detector.counter("closed") == 1
    assert detector.counter("conflicts") == 0
