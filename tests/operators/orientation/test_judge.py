import numpy as np
import pytest

from operators.engine.backends import get_host_backend
from operators.optics.probe import zone_plate_probe
from operators.orientation.judge import CERTAIN, LEAST_FRAMES, find_orientation
from operators.orientation.turn import CLASSES, Turn
from tests.helpers.operators.scenes import DISC_PX, N_PIXELS, PUPIL_PX, make_scene


@pytest.fixture(scope="module")
def scene():
    return make_scene(side=8)


def test_how_positions_were_recorded_is_found_with_the_defocus_of_a_known_probe(scene):
    """Of the turn and its negative, that whose probe is on the right side of the focus."""
    turn = Turn(True, (-1, 1))
    assert turn.kind != turn
    found = find_orientation(
        scene.patterns,
        turn.inverse(scene.corners.astype(float)),
        probe=zone_plate_probe(N_PIXELS, PUPIL_PX, DISC_PX)[None],
        run_update=get_host_backend(1).update,
    )
    assert found.turn == turn
    assert found.is_certain
    assert found.sign_from == "probe"
    assert sum(found.confidences.values()) == pytest.approx(1)
    assert (
        found.unexplained[turn.kind]
        < 0.5
        < min(found.unexplained[other] for other in CLASSES if other != turn.kind)
    )


def test_noise_leaves_every_class_as_likely_as_the_others(scene):
    rng = np.random.default_rng(1)
    noise = rng.poisson(50.0, scene.patterns.shape)
    found = find_orientation(noise.astype(np.float32), scene.corners.astype(float))
    assert found.confidence < 0.5 < CERTAIN
    assert found.sign_from == "recorded"
    assert found.curvature is None
    assert not found.unexplained


def test_too_few_frames_are_refused(scene):
    with pytest.raises(ValueError, match=f"at least {LEAST_FRAMES} frames, got 8"):
        find_orientation(scene.patterns[:8], scene.corners[:8].astype(float))
