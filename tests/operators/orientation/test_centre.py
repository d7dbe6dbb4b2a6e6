import numpy as np
import pytest

from operators.orientation.centre import beam_centre

ROWS, COLUMNS = 96, 120


def pupil(row, column, *, radius=14.0, stop=5.0):
    """A ring that is brighter on one side, on a faint halo."""
    y, x = np.indices((ROWS, COLUMNS))
    distance = np.hypot(y - row, x - column)
    ring = 1 / (1 + np.exp((distance - radius) / 0.6)) - 1 / (1 + np.exp((distance - stop) / 0.6))
    return ring * (100 + 2 * (x - column)) + 0.1 * np.exp(-((distance / 40) ** 2))


@pytest.mark.parametrize("centre", [(48.0, 60.0), (40.3, 66.8), (52.6, 52.5)])
def test_the_centre_is_that_of_the_pupil_whatever_is_brighter_inside(centre):
    assert beam_centre(pupil(*centre)) == pytest.approx(centre, abs=0.3)


def test_a_gap_through_the_beam_and_a_hot_pixel_do_not_move_it():
    valid = np.ones((ROWS, COLUMNS), bool)
    valid[50:53] = valid[:, 66:68] = False
    frame = np.where(valid, pupil(45.2, 63.7), 0)
    frame[10, 10] = 1e6
    assert beam_centre(frame, valid) == pytest.approx((45.2, 63.7), abs=0.5)


def test_a_dark_detector_has_no_centre():
    with pytest.raises(ValueError, match="dark"):
        beam_centre(np.zeros((32, 32)))
