import numpy as np
import pytest

from operators.optics.samples import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    object_from_texture,
    siemens_star,
    texture,
    texture_from_image,
    warped,
)

EVERY_FAMILY = (*FAMILIES, *HELD_OUT_FAMILIES)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_textures_fill_the_range_from_0_to_1(family: str) -> None:
    values = texture(family, (96, 128), np.random.default_rng(0))
    assert values.shape == (96, 128)
    assert values.dtype == np.float32
    assert values.min() == 0
    assert values.max() == 1
    assert values.std() > 0.1


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_texture_is_determined_by_its_generator(family: str) -> None:
    first, again, other = (texture(family, (64, 64), np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.05


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_a_piece_of_a_picture_is_a_texture(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    first, again, other = (
        texture_from_image(picture, (96, 128), np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert first.shape == (96, 128)
    assert first.dtype == np.float32
    assert first.min() == 0
    assert first.max() == 1
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.05


def test_a_warped_texture_has_bent_lines_and_no_new_values() -> None:
    lines = np.tile((np.arange(96) % 12 < 6).astype(np.float32), (96, 1))
    bent = warped(lines, np.random.default_rng(0))
    assert bent.dtype == np.float32
    assert (bent.min(), bent.max()) == (0, 1)
    assert bent.mean() == pytest.approx(0.5, abs=0.05)
    assert np.abs(bent - bent[0]).mean() > 0.1  # its rows were all the same
    assert ((bent > 0.01) & (bent < 0.99)).mean() < 0.3  # edges stay edges
    np.testing.assert_array_equal(warped(lines, np.random.default_rng(0)), bent)


def test_no_family_is_both_trained_and_held_out() -> None:
    assert len(FAMILIES) == 9
    assert HELD_OUT_FAMILIES == ("glyphs", "filaments")
    assert not set(FAMILIES) & set(HELD_OUT_FAMILIES)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'marble'; choose one of smooth.*filaments"):
        texture("marble", (64, 64), np.random.default_rng(0))


def test_a_shape_too_small_for_a_texture_is_refused() -> None:
    with pytest.raises(ValueError, match="16 x 16 pixels, got 64 x 8"):
        texture("smooth", (64, 8), np.random.default_rng(0))


def test_a_siemens_star_has_the_announced_period() -> None:
    n_spokes, radius = 24, 80.0
    star = siemens_star((201, 201), n_spokes)
    angles = 2 * np.pi * np.arange(4096) / 4096
    rows, columns = (np.rint(100 + radius * f(angles)).astype(int) for f in (np.sin, np.cos))
    spectrum = np.abs(np.fft.rfft(star[rows, columns]))
    assert spectrum[1:].argmax() + 1 == n_spokes
    bright_share = star[rows, columns].mean()
    assert bright_share == pytest.approx(0.5, abs=0.01)


def test_a_siemens_star_turns_by_its_angle() -> None:
    quarter_turned = siemens_star((101, 101), 7, angle_rad=np.pi / 2)
    np.testing.assert_allclose(quarter_turned, np.rot90(siemens_star((101, 101), 7), -1), atol=1e-4)


def test_a_fixed_material_ties_phase_to_absorption() -> None:
    thickness = texture("smooth", (64, 64), np.random.default_rng(1))
    object_ = object_from_texture(thickness, 0.3 + 1.2j)
    assert object_.dtype == np.complex64
    np.testing.assert_allclose(np.abs(object_), np.exp(-0.3 * thickness), rtol=1e-5)
    np.testing.assert_allclose(np.angle(object_), -1.2 * thickness, atol=1e-5)


def test_a_mixed_object_has_a_phase_of_its_own() -> None:
    rng = np.random.default_rng(1)
    thickness, delay = texture("smooth", (64, 64), rng), texture("voronoi", (64, 64), rng)
    object_ = object_from_texture(thickness, 0.3 + 1.2j, phase_texture=delay)
    np.testing.assert_allclose(np.abs(object_), np.exp(-0.3 * thickness), rtol=1e-5)
    np.testing.assert_allclose(np.angle(object_), -1.2 * delay, atol=1e-5)
    with pytest.raises(ValueError, match="make them equal"):
        object_from_texture(thickness, phase_texture=delay[:-1])
