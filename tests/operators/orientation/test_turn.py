import numpy as np
import pytest

from operators.arrays import corner_origin
from operators.optics.forward import intensities
from operators.orientation.turn import CLASSES, TURNS, Turn, turned_frames
from operators.patches import extract_patches
from tests.helpers.operators.scenes import N_PIXELS, make_scene


def test_eight_turns_are_four_classes_of_a_turn_and_its_negative():
    assert len(set(TURNS)) == 8
    assert len(CLASSES) == 4
    for turn in TURNS:
        assert turn.kind in CLASSES
        assert turn.kind == turn.negated.kind


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_is_undone_by_its_inverse_and_composed_from_the_right(turn):
    positions = np.array([[1.0, 2.0], [-3.0, 0.5]])
    np.testing.assert_array_equal(turn.inverse(turn(positions)), positions)
    other = Turn(True, (-1, 1))
    np.testing.assert_array_equal(turn.after(other)(positions), turn(other(positions)))
    np.testing.assert_array_equal(positions @ turn.matrix.T, turn(positions))


def pattern_of(probe, object_, corner):
    patch = extract_patches(object_, np.array([corner]), N_PIXELS)
    return intensities(probe, patch)[0]


@pytest.mark.parametrize("turn", TURNS)
def test_frames_and_positions_turned_together_are_those_of_a_turned_sample(turn):
    """The claim of the classes: object, probe and positions turned alike make turned frames."""
    scene = make_scene(side=2)
    patch = extract_patches(scene.truth, scene.corners[1:2], N_PIXELS)
    # odd, so that the middle is a pixel and turning is exact
    patch, probe = patch[:, :-1, :-1], scene.probe[:, :-1, :-1]
    frame = np.fft.fftshift(intensities(probe, patch), axes=(1, 2))
    turned = intensities(turned_frames(probe, turn), turned_frames(patch, turn))
    np.testing.assert_allclose(
        np.fft.fftshift(turned, axes=(1, 2)), turned_frames(frame, turn), rtol=1e-3, atol=1e-2 * frame.mean()
    )


def test_a_conjugated_sample_turned_by_half_makes_the_very_same_frame():
    scene = make_scene(side=2)
    patch = extract_patches(scene.truth, scene.corners[1:2], N_PIXELS)[:, :-1, :-1]
    probe, half = scene.probe[:, :-1, :-1], Turn(signs=(-1, -1))
    twin = intensities(turned_frames(probe, half).conj(), turned_frames(patch, half).conj())
    np.testing.assert_allclose(twin, intensities(probe, patch), rtol=1e-3, atol=1.0)


def test_zero_frequency_stays_in_the_middle_of_an_even_frame():
    frame = np.zeros((1, 8, 8), np.uint16)
    frame[0, 4, 4] = 1
    for turn in TURNS:
        assert corner_origin(turned_frames(frame, turn))[0, 0, 0] == 1
