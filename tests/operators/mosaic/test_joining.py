import numpy as np
import pytest

from operators.geometry import Bounds
from operators.mosaic.joining import CELL_PX, Plane, join, plane_between

ROOM = Bounds(-40, 1000, 120, 1200)
NOISE = 0.1  # rad, of each pixel of either picture
CELL_ERROR = np.sqrt(2) * NOISE / CELL_PX  # of the mean over a cell, by that noise


def noisy(rng, shape):
    return np.exp(1j * rng.normal(0, NOISE, shape)).astype(np.complex64)


class Scene:
    """One picture that ends at column `edge`, and one that goes on in a gauge of its own.

    They share `shared` columns, and all rows.
    """

    def __init__(self, *, shared=100, phase=lambda y, x: 0 * y, scale=1.0, seed=0, rows=ROOM.shape[0]):
        rng = np.random.default_rng(seed)
        self.common = Bounds(ROOM.top, ROOM.left + 100 - shared, ROOM.top + rows, ROOM.left + 100)
        y, x = np.indices(ROOM.shape) + np.reshape(ROOM.origin, (2, 1, 1))
        truth = (1 - 0.3 * np.cos(y / 5)) * np.exp(1j * np.sin(x / 7) * np.cos(y / 9))
        self.wanted = (truth * noisy(rng, truth.shape)).astype(np.complex64)
        self.there = (truth * np.exp(-1j * phase(y, x)) * noisy(rng, truth.shape) / scale).astype(
            np.complex64
        )
        self.truth = truth

    def joint(self, step=1):
        window = tuple(slice(w.start, w.stop, step) for w in self.common.slices_in(ROOM))
        wanted, there = self.wanted[window], self.there[window]
        return join(wanted, there, np.ones(wanted.shape, np.float32), self.common, ROOM, step)

    def errors(self, columns, joint=None):
        """Return the mean phase error over each 16 rows of the joined picture, `columns` from the edge on."""
        joined = self.there * (joint or self.joint()).over(ROOM)
        product = (joined * self.truth.conj())[:, 100:][:, columns]
        rows = self.common.shape[0] // 16 * 16
        return np.angle(product[:rows].reshape(-1, 16, product.shape[1]).sum(axis=(1, 2)))


@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.02, -0.01), (-0.15, 0.12)], ids=str)
@pytest.mark.parametrize("shared", [100, 64])
def test_offset_ramp_and_scale_are_found_also_when_they_turn_many_times(slope, shared):
    scene = Scene(shared=shared, phase=lambda y, x: 2 + slope[0] * y + slope[1] * x, scale=0.8)
    joint = scene.joint()
    np.testing.assert_allclose(joint.plane.slope, slope, atol=5e-4)
    assert joint.scale == pytest.approx(0.8, rel=0.01)
    assert abs(scene.errors(slice(0, 8))).max() < 4 * CELL_ERROR, "no step at the border"
    assert abs(scene.errors(slice(40, 100))).max() < 0.06, "and none beyond: 5e-4 rad/px over 100 pixels"


@pytest.mark.parametrize("shared", [24, 6, 1])
def test_on_little_common_ground_the_pictures_meet_in_phase_and_no_slope_is_made_up(shared):
    scene = Scene(shared=shared, phase=lambda y, x: 0 * y + 1.0, rows=48)
    joint = scene.joint()
    assert np.hypot(*joint.plane.slope) < 1e-3
    error = 4 * np.sqrt(2) * NOISE / np.sqrt(16 * shared)  # of the mean of 16 rows of what is common
    assert abs(scene.errors(slice(0, 8), joint)).max() < error + 4 * CELL_ERROR


def test_phases_that_wander_meet_all_along_the_border():
    def wandering(y, x):
        return 0.4 * np.sin(y / 25) + 0.2 * np.sin(x / 30 + 1)

    scene = Scene(phase=wandering)
    assert np.ptp(scene.errors(slice(0, 8), Scene().joint())) > 0.6, "unjoined"
    lag = 0.2 / 30 * 2 * CELL_PX  # what it wanders over the pixels by which phases are averaged
    assert np.abs(scene.errors(slice(0, 8))).max() < lag
    assert np.abs(scene.errors(slice(30, 90))).max() < 0.6, "beyond, no worse than it wandered"


def test_by_chance_alone_there_is_hardly_a_slope():
    slopes = [np.hypot(*Scene(seed=seed).joint().plane.slope) for seed in range(20)]
    assert np.median(slopes) == 0
    assert max(slopes) < 5e-4


def test_of_large_common_ground_some_pixels_are_enough():
    scene = Scene(phase=lambda y, x: 0.03 * y - 0.05 * x)
    every, some = scene.joint(), scene.joint(step=3)
    np.testing.assert_allclose(some.plane.slope, every.plane.slope, atol=3e-4)
    difference = np.angle(some.over(scene.common) * every.over(scene.common).conj())
    assert np.abs(difference).max() < 12 * CELL_ERROR, "a ninth of the pixels, three times the error"


def test_without_anything_in_common_there_is_no_phase():
    bounds = Bounds(3, 4, 40, 50)
    assert plane_between(np.zeros(bounds.shape, np.complex64), bounds) == Plane()


def test_the_factors_at_single_places_are_those_of_the_map():
    joint = Scene(phase=lambda y, x: 0.5 + 0.01 * y + 0.3 * np.sin(x / 20), scale=1.3).joint()
    places = np.array([[-40, 1000], [3, 1057], [119, 1199]])
    expected = [joint.over(ROOM)[tuple(place - np.array(ROOM.origin))] for place in places]
    np.testing.assert_allclose(joint.at(places), expected, rtol=1e-4)
