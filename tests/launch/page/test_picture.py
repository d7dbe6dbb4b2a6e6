import numpy as np
import pytest

from launch.page.picture import MAX_SIDE_PX, UNITS, Drawing, read_map
from operators.mosaic.scan_maps import MAPS
from tests.helpers.stream.live_images import decode_picture, live_image


def test_every_map_leaves_unknown_pixels_out_and_keeps_orientation():
    object_ = np.linspace(1, 2, 12).reshape(3, 4) * np.exp(0.1j * np.arange(4))
    object_[0, 0] = 0
    header, path, maps = decode_picture(
        Drawing(live_image(object_, path=np.float32([[12, 23]]), origin_px=(10, 20))).packet()
    )
    assert (header["shape"], header["pixel_m"], header["scan"]) == ([3, 4], 1e-8, "0000-star")
    np.testing.assert_array_equal(path, [[2, 3]])
    for name in maps.keys() - set(MAPS):
        assert maps[name][0, 0] == 0
        assert np.all(maps[name].ravel()[1:] > 0)
    assert maps["amplitude"].argmax() == 11
    assert np.all(np.diff(maps["phase_with_ramp"][1].astype(int)) > 0)
    np.testing.assert_array_equal(maps["source"], object_ != 0)


def test_levels_give_the_value_back_and_the_lit_percentiles_beside_it():
    object_ = np.linspace(0.5, 1.5, 64 * 64).reshape(64, 64)
    object_[0, 0] = 1e6  # one hot pixel of the rim does not make the steps coarse
    drawn = Drawing(live_image(object_)).map("amplitude")
    np.testing.assert_allclose(values_of(drawn).ravel()[1:], object_.ravel()[1:], atol=2e-4)
    assert (drawn.levels[0, 0], drawn.most) == (65535, 1e6)
    assert drawn.high < 11
    assert drawn.percentiles[0.5] == pytest.approx(0.505, abs=1e-3)
    assert drawn.percentiles[95] == pytest.approx(1.45, abs=1e-3)


def test_a_packet_can_be_read_back():
    object_ = np.linspace(0.5, 1.5, 60).reshape(6, 10)
    object_[2, 3] = 0
    packet = Drawing(live_image(object_, path=np.float32([[1, 2]]), version=7)).packet(["phase", "amplitude"])
    header, values = read_map(packet, "amplitude")
    assert header["version"] == 7
    np.testing.assert_allclose(values, np.where(object_ > 0, object_, np.nan), atol=1e-4)
    with pytest.raises(ValueError, match="no sigma, only phase, amplitude"):
        read_map(packet, "sigma")


def test_a_packet_has_the_maps_that_were_asked_for_in_the_order_of_all():
    drawing = Drawing(live_image(np.ones((3, 5))))
    assert list(decode_picture(drawing.packet(["phase", "sigma"]))[2]) == ["phase", "sigma"]
    assert list(decode_picture(drawing.packet())[2]) == list(UNITS)


def test_what_patterns_show_alone_is_drawn_where_the_probes_were_before_anything_else_is_known():
    centres = np.float32([[y, x] for y in range(4, 20, 4) for x in range(4, 24, 4)])
    moments = np.column_stack([centres, 100 * centres[:, 1], np.zeros((len(centres), 2)), centres[:, 0]])
    image = live_image(np.zeros((24, 28)), moments=moments.astype(np.float32), pattern_px=8)
    header, _, maps = decode_picture(Drawing(image).packet(["amplitude", "intensity", "dark_field"]))
    assert not header["has_object"]
    assert not maps["amplitude"].any()
    intensity, dark_field = (read_map(Drawing(image).packet([n]), n)[1] for n in ("intensity", "dark_field"))
    assert intensity[8, 12] == pytest.approx(1200, rel=0.2)
    assert dark_field[16, 12] == pytest.approx(16, rel=0.2)
    assert np.isnan(intensity[-1, -1])
    assert decode_picture(Drawing(live_image(np.ones((3, 5)))).packet())[0]["has_object"]


def test_a_large_image_is_averaged_over_its_known_pixels():
    object_ = np.full((MAX_SIDE_PX + 2, 3), 2.0)
    object_[1::2] = 0  # half of every block is unknown
    header, path, maps = decode_picture(
        Drawing(live_image(object_, path=np.float32([[100, 2], [200, 1]]))).packet()
    )
    assert (header["shape"], header["binning"], header["pixel_m"]) == ([MAX_SIDE_PX // 2 + 1, 2], 2, 2e-8)
    np.testing.assert_array_equal(path, [[50, 1], [100, 0.5]])
    amplitude, *_ = header["maps"]
    assert amplitude["low"] == amplitude["percentiles"]["5"] == 2.0
    assert np.all(maps["amplitude"] == 1)


def phases(object_, **fields):
    """Return the maps of the phase without and with its ramp."""
    drawing = Drawing(live_image(object_, **fields))
    return drawing.map("phase"), drawing.map("phase_with_ramp")


def values_of(drawn):
    return drawn.low + (drawn.levels.astype(float) - 1) * (drawn.high - drawn.low) / 65534


def test_phase_is_fitted_while_it_is_small_and_a_circle_when_it_wraps():
    waves = np.ones((8, 1)) * np.sin(2 * np.pi * np.arange(64) / 64)
    for fitted in phases(np.exp(0.5j * waves + 2j)):
        assert not fitted.is_cyclic
        assert (fitted.percentiles[0.5], fitted.percentiles[99.5]) == (
            pytest.approx(-0.5, abs=0.02),
            pytest.approx(0.5, abs=0.02),
        )
    for circle in phases(np.exp(4.5j * waves)):
        assert circle.is_cyclic
        assert (circle.low, circle.high) == (-np.pi, np.pi)


def test_one_map_of_the_phase_has_no_ramp_however_it_wraps_and_the_other_keeps_it():
    rows, columns = np.indices((90, 70))
    star = 0.6 * (np.sin(8 * np.arctan2(rows - 40.3, columns - 33.7)) > 0)
    ramp = 0.23 * rows - 0.11 * columns  # four turns over the picture
    known = np.hypot(rows - 45, columns - 35) < 34
    level, _ = phases(np.where(known, np.exp(1j * star), 0))
    flat, kept = phases(np.where(known, np.exp(1j * (star + ramp)), 0))
    np.testing.assert_allclose(values_of(flat)[known], values_of(level)[known], atol=0.02)
    assert kept.is_cyclic and not flat.is_cyclic
    steps = np.angle(np.exp(1j * np.diff(values_of(kept), axis=0)[10:60, 35]))
    assert np.median(steps) == pytest.approx(0.23, abs=0.03)


def test_ground_without_light_does_not_tilt_the_drawn_phase():
    object_ = np.ones((40, 60), complex)
    object_[:, 40:] = np.exp(0.5j * np.arange(20))
    photons = np.full(object_.shape, 50, np.float32)
    photons[:, 40:] = 1e-4
    flat, _ = phases(object_, photons=photons)
    assert np.ptp(values_of(flat)[:, :40]) < 0.02


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
    header, _, maps = decode_picture(Drawing(image).packet())
    for entry in header["maps"]:
        assert np.isfinite([entry["low"], entry["high"]]).all()
        assert entry["low"] < entry["high"]
        assert maps[entry["name"]].shape == image.object.shape
