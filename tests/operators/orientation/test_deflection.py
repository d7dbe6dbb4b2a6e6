import numpy as np
import pytest

from operators.orientation.deflection import deflections, log_evidence
from operators.orientation.turn import CLASSES
from tests.helpers.operators.scenes import make_scene


@pytest.fixture(scope="module")
def scene():
    return make_scene(side=10)


@pytest.mark.parametrize("turn", CLASSES)
def test_the_class_that_positions_were_recorded_in_has_most_evidence(scene, turn):
    recorded = turn.inverse(scene.corners.astype(float))
    evidence = log_evidence(deflections(scene.patterns), recorded)
    best, second = sorted(evidence.values(), reverse=True)[:2]
    assert max(evidence, key=evidence.__getitem__) == turn.kind
    assert best - second > 10


def test_noise_is_evidence_for_no_class(scene):
    rng = np.random.default_rng(0)
    for _ in range(3):
        noise = rng.standard_normal((100, 2))
        evidence = list(log_evidence(noise, scene.corners.astype(float)).values())
        assert np.ptp(evidence) < 4


def test_a_beam_that_wanders_slowly_deflects_nothing():
    patterns = np.zeros((50, 16, 16), np.float32)
    steps = np.linspace(0, 1, 50)
    patterns[:, 0, 0], patterns[:, 2, 1] = 1 - steps, steps
    np.testing.assert_allclose(deflections(patterns), 0, atol=1e-6)


def test_frames_that_are_all_alike_tell_nothing(scene):
    evidence = log_evidence(np.zeros((100, 2)), scene.corners.astype(float))
    assert set(evidence.values()) == {0.0}
