import numpy as np
import pytest

from launch.page.picture import MAX_SIDE_PX, draw_maps, encode_picture
from tests.helpers.stream.live_images import decode_picture, live_image


def test_every_map_leaves_unknown_pixels_out_and_keeps_orientation():
    object_ = np.linspace(1, 2, 12).reshape(3, 4) * np.exp(0.1j * np.arange(4))
    object_[0, 0] = 0
    header, path, maps = decode_picture(
        encode_picture(live_image(object_, path=np.float32([[12, 23]]), origin_px=(10, 20)))
    )
    assert (header["shape"], header["pixel_m"], header["scan"]) == ([3, 4], 1e-8, "0000-star")
    np.testing.assert_array_equal(path, [[2, 3]])
    for levels in maps.values():
        assert levels[0, 0] == 0
        assert np.all(levels.ravel()[1:] > 0)
    assert maps["amplitude"].argmax() == 11
    assert np.all(np.diff(maps["phase"][1].astype(int)) > 0)
    np.testing.assert_array_equal(maps["source"], object_ != 0)


def test_levels_give_the_value_back_within_a_step():
    object_ = np.linspace(0.5, 1.5, 64 * 64).reshape(64, 64)
    amplitude, *_ = draw_maps(live_image(object_), 1)
    step = (amplitude.high - amplitude.low) / 254
    inside = (object_ > amplitude.low) & (object_ < amplitude.high)
    values = amplitude.low + (amplitude.levels.astype(float) - 1) * step
    assert np.abs(values - object_)[inside].max() < 0.51 * step
    assert inside.mean() > 0.98


def test_a_large_image_is_averaged_over_its_known_pixels():
    object_ = np.full((MAX_SIDE_PX + 2, 3), 2.0)
    object_[1::2] = 0  # half of every block is unknown
    header, path, maps = decode_picture(
        encode_picture(live_image(object_, path=np.float32([[100, 2], [200, 1]])))
    )
    assert (header["shape"], header["binning"], header["pixel_m"]) == ([MAX_SIDE_PX // 2 + 1, 2], 2, 2e-8)
    np.testing.assert_array_equal(path, [[50, 1], [100, 0.5]])
    amplitude, *_ = header["maps"]
    assert amplitude["low"] == pytest.approx(2.0)
    assert np.all(maps["amplitude"] == 1)


def test_phase_is_fitted_while_it_is_small_and_a_circle_when_it_wraps():
    ramp = np.ones((8, 1)) * np.arange(64) / 64
    small, wrapped = live_image(np.exp(1j * ramp + 2j)), live_image(np.exp(9j * ramp))
    fitted = draw_maps(small, 1)[1]
    assert not fitted.is_cyclic
    assert (fitted.low, fitted.high) == (pytest.approx(-0.5, abs=0.02), pytest.approx(0.5, abs=0.02))
    circle = draw_maps(wrapped, 1)[1]
    assert circle.is_cyclic
    assert (circle.low, circle.high) == (-np.pi, np.pi)


@pytest.mark.parametrize(
    "image",
    [
        live_image(np.zeros((0, 0))),
        live_image(np.zeros((3, 5))),
        live_image(np.ones((3, 5))),
        live_image(np.full((3, 5), np.nan), sigma=np.full((3, 5), np.inf), photons=np.zeros((3, 5))),
    ],
    ids=["of nothing", "unknown", "flat", "not finite"],
)
def test_an_image_without_a_range_can_be_drawn(image):
    header, _, maps = decode_picture(encode_picture(image))
    for entry in header["maps"]:
        assert np.isfinite([entry["low"], entry["high"]]).all()
        assert entry["low"] < entry["high"]
        assert maps[entry["name"]].shape == image.object.shape
