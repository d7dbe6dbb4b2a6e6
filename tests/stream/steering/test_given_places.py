"""A policy that may measure at given places only, such as the positions of a recorded scan."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stream.steering.config import PolicyConfig
from stream.steering.policy import Policy
from tests.helpers.stream.policies import AXES, DIAMETER_PX, ILLUMINATION, LIMITS, image

PLACES = np.random.default_rng(3).uniform(*LIMITS[0], (150, 2))


@pytest.fixture
def steers():
    return Policy(PolicyConfig(limits=LIMITS).aims(AXES), ILLUMINATION, PLACES)


def centres_of(points):
    return list(map(tuple, AXES.centres(points).tolist()))


@pytest.mark.parametrize("is_seen", [False, True])
def test_nothing_but_the_places_is_recommended_and_none_of_them_twice(steers, is_seen):
    known, measured = set(centres_of(PLACES)), []
    while True:
        _, points = steers.recommend(20)
        if not len(points):
            break
        measured += centres_of(points)
        steers.ingest([{"y": y, "x": x} for y, x in points])
        if is_seen:
            steers.look(image(version=len(measured), path=measured))
    assert set(measured) == known
    assert len(measured) == len(known)


def test_the_first_look_leaves_no_hole(steers):
    _, points = steers.recommend(100)
    far = cKDTree(AXES.centres(points)).query(AXES.centres(PLACES))[0]
    assert far.max() < 1.5 * DIAMETER_PX


def test_no_place_at_all_is_refused():
    with pytest.raises(ValueError, match="expected at least one place"):
        Policy(PolicyConfig(limits=LIMITS).aims(AXES), ILLUMINATION, np.zeros((0, 2)))
