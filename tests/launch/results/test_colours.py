import numpy as np
import pytest

from launch.results.colours import OF_MAP, drawn_phase, tables

EVEN = sorted(set(tables()) - {"grey", "source"})
STEP = 8  # entries: between neighbours rounding to whole numbers shows


def oklab(rgb):
    """Lightness, a, b of sRGB 0..255 (B. Ottosson, 2020), the inverse of what the tables are made by."""
    v = rgb / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.transpose(to_cones)) @ np.transpose(to_lab)


@pytest.mark.parametrize("name", EVEN)
def test_equal_steps_of_a_value_look_equally_large(name):
    steps = np.linalg.norm(np.diff(oklab(tables()[name][::STEP]), axis=0), axis=1)
    assert steps.min() > 0.85 * steps.mean()
    assert steps.max() < 1.15 * steps.mean()


@pytest.mark.parametrize("name", sorted(set(EVEN) - {"cyclic", "blue-red"}))
def test_a_larger_value_is_lighter(name):
    assert (np.diff(oklab(tables()[name][::STEP])[:, 0]) > 0.015).all()


def test_amplitude_is_grey_in_equal_steps():
    grey = tables()[OF_MAP["amplitude"]]
    assert (grey == np.arange(256)[:, None]).all()


def test_the_cyclic_map_ends_where_it_begins_and_is_light_at_zero_and_dark_at_half_a_turn():
    lightness = oklab(tables()["cyclic"])[:, 0]
    assert np.abs(np.diff(tables()["cyclic"].astype(int)[[0, -1]], axis=0)).max() <= 3
    assert 124 <= lightness.argmax() <= 131
    assert lightness.argmin() in (*range(4), *range(252, 256))
    np.testing.assert_allclose(lightness, lightness[::-1], atol=0.04)


def test_the_diverging_map_is_white_in_the_middle_and_equally_dark_at_both_ends():
    table = tables()["blue-red"]
    assert np.ptp(table[127:129].astype(int)) <= 2
    first, last = oklab(table)[[0, -1], 0]
    assert first == pytest.approx(last, abs=0.02)


def test_every_source_of_a_pixel_has_its_colour():
    unknown, network, refined = tables()["source"].tolist()
    assert unknown == [0, 0, 0]
    assert network != refined


def test_a_phase_within_half_a_turn_fills_its_range_and_a_wider_one_the_whole_circle():
    assert drawn_phase(-1.0, 2.0) == ("blue-yellow", -1.0, 2.0)
    assert drawn_phase(-1.0, 2.2) == ("cyclic", -np.pi, np.pi)
