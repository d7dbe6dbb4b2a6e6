import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from operators.geometry import Bounds
from operators.steering.survey import JITTER, survey

STEP_PX = 18.0


@settings(max_examples=25, deadline=None)
@given(st.integers(-300, 300), st.integers(1, 150), st.integers(1, 150), st.integers(0, 99))
def test_a_survey_sees_every_place_from_inside_the_area(top, height, width, seed):
    area = Bounds(top, 7, top + height, 7 + width)
    points = survey(area, STEP_PX, np.random.default_rng(seed))
    assert (points >= area.origin).all()
    assert (points < (area.bottom, area.right)).all()
    assert len(np.unique(points, axis=0)) == len(points)
    everywhere = np.argwhere(np.ones(area.shape)) + area.origin
    assert cKDTree(points).query(everywhere)[0].max() <= STEP_PX * (np.sqrt(0.5) + np.sqrt(2) * JITTER) + 1


def test_a_survey_goes_from_neighbour_to_neighbour():
    points = survey(Bounds(0, 0, 200, 200), STEP_PX, np.random.default_rng(0))
    assert np.hypot(*np.diff(points, axis=0).T).max() < 2.2 * STEP_PX
