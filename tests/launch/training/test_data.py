from typing import Any

import numpy as np
import pytest
import torch

from launch.training import samples
from launch.training.data import Simulator
from launch.training.recipe import Recipe, read_recipe
from operators.metrics.errors import nrmse
from operators.network.gaps import fill_gaps


def recipe_with(**changes: Any) -> Recipe:
    """A recipe of small patterns and few textures; a mapping replaces keys of its section."""
    fields = read_recipe().model_dump() | {
        "network_config": {"n_pixels": 32, "crop": 24},
        "probe": {"pupil_radius_px": 6, "disc_radius_px": 7, "disc_spread": 0.1, "n_probes": 4},
        "photons_per_frame": [1e5, 1e6],
        "n_textures": 5,
        "texture_px": 64,
    }
    for name, value in changes.items():
        fields[name] = (fields[name] or {}) | value if isinstance(value, dict) else value
    return Recipe.model_validate(fields)


def drawn(recipe: Recipe, n_frames: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Objects and intensities of a fresh simulator."""
    generator = torch.Generator().manual_seed(seed)
    objects, intensities, _ = Simulator(recipe).draw(n_frames, generator)
    return objects.numpy(), intensities.numpy()


def pattern_of(modes: torch.Tensor, objects: torch.Tensor) -> np.ndarray:
    far_fields = np.fft.fft2((modes * objects[:, None]).numpy(), norm="ortho")
    return (np.abs(far_fields) ** 2).sum(axis=1)


def absorption_and_delay(objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -np.log(np.abs(objects)), -np.angle(objects)


def test_patterns_are_those_of_objects_and_probes() -> None:
    simulator = Simulator(recipe_with(photons_per_frame=[1e9, 1e9]))
    objects, intensities, illumination = simulator.draw(8, torch.Generator().manual_seed(0))
    expected = pattern_of(illumination.modes, objects)
    assert nrmse(intensities.numpy(), expected).c < 1e-3


def test_the_network_is_told_the_photons_of_every_frame() -> None:
    _, intensities, illumination = Simulator(recipe_with()).draw(8, torch.Generator().manual_seed(0))
    counts = intensities * illumination.photons
    assert illumination.photons.flatten().unique().numel() == 8
    torch.testing.assert_close(counts, counts.round(), atol=1e-2, rtol=1e-5)


def test_a_fixed_material_ties_phase_to_absorption() -> None:
    absorption, delay = absorption_and_delay(drawn(recipe_with())[0])
    np.testing.assert_allclose(delay, 4 * absorption, atol=1e-5)


def test_a_material_from_ranges_is_another_in_every_object() -> None:
    material = {"absorption": [0.1, 0.5], "phase_shift_rad": [0.5, 2.0]}
    absorption, delay = absorption_and_delay(drawn(recipe_with(material=material))[0])
    ratios = delay.sum((1, 2)) / absorption.sum((1, 2))
    np.testing.assert_allclose(delay, ratios[:, None, None] * absorption, atol=1e-4)
    assert ratios.min() < 2.5
    assert ratios.max() > 7
    assert 1 <= ratios.min() < ratios.max() <= 20


def test_mixed_objects_have_phases_of_their_own_in_the_share_asked_for() -> None:
    absorption, delay = absorption_and_delay(drawn(recipe_with(material={"mixed": 0.5}))[0])
    is_mixed = np.abs(delay - 4 * absorption).max((1, 2)) > 0.01
    assert 0.3 < is_mixed.mean() < 0.7
    assert delay.max() <= 1.2 + 1e-5
    assert absorption.max() <= 0.3 + 1e-5


def test_blended_objects_are_as_absorbing_as_plain_ones_but_others() -> None:
    absorption, _ = absorption_and_delay(drawn(recipe_with(blended=1.0))[0])
    plain, _ = absorption_and_delay(drawn(recipe_with(blended=0.0))[0])
    assert np.abs(plain - absorption).max((1, 2)).min() > 1e-3
    assert absorption.min() >= -1e-6
    assert absorption.max() <= 0.3 + 1e-6


def test_toned_objects_are_as_absorbing_as_plain_ones_in_other_shapes() -> None:
    smooth = {"families": ["smooth"], "blended": 0.0}
    absorption, _ = absorption_and_delay(drawn(recipe_with(toned=1.0, **smooth))[0])
    plain, _ = absorption_and_delay(drawn(recipe_with(toned=0.0, **smooth))[0])
    assert absorption.min() >= -1e-6
    assert absorption.max() <= 0.3 + 1e-6

    def slope(thickness: np.ndarray) -> float:
        return float(np.abs(np.diff(thickness, axis=-1)).mean())

    assert slope(absorption) > 1.5 * slope(plain)  # contours where there were slopes


def test_as_many_textures_are_warped_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "warped", lambda values, rng: np.full_like(values, 2))

    def share(warped: float) -> float:
        recipe = recipe_with(n_textures=60, families=["power_law"], warped=warped)
        return float((Simulator(recipe).textures == 2).all((1, 2)).float().mean())

    assert share(0.0) == 0
    assert 0.3 < share(0.5) < 0.7
    assert share(1.0) == 1


def test_fewer_photons_make_noisier_patterns() -> None:
    few, many = (drawn(recipe_with(photons_per_frame=[photons] * 2), 500)[1] for photons in (1e3, 1e9))
    relative_error = np.square(few - many).sum() / many.sum()
    assert relative_error == pytest.approx(1e-3, rel=0.1)  # the variance of a Poisson count is its mean


def test_crops_come_in_all_eight_orientations() -> None:
    recipe = recipe_with(n_textures=1, texture_px=32, families=["power_law"], blended=0.0, toned=0.0)
    objects, _ = drawn(recipe, 200)
    assert len({image.tobytes() for image in objects}) == 8


def test_modes_add_in_the_pattern_and_the_network_is_told_all_of_them() -> None:
    simulator = Simulator(
        recipe_with(probe={"blur_px": [1.0, 1.0], "n_modes": 3}, photons_per_frame=[1e9, 1e9])
    )
    assert simulator.probes.shape == (4, 3, 32, 32)
    power = simulator.probes.abs().square().sum((-2, -1))
    np.testing.assert_allclose(power.sum(1), 1, rtol=1e-4)
    assert (power[:, 0] < 0.97).all()
    objects, intensities, illumination = simulator.draw(8, torch.Generator().manual_seed(0))
    assert nrmse(intensities.numpy(), pattern_of(illumination.modes, objects)).c < 1e-3
    assert nrmse(intensities.numpy(), pattern_of(illumination.modes[:, :1], objects)).c > 0.05


def test_the_gaps_of_detectors_are_filled_in_training_as_they_are_in_use() -> None:
    recipe = recipe_with(effects={"dead_share": 0.1, "hot_share": 0.1, "n_detectors": 3})
    simulator = Simulator(recipe)
    assert simulator.detectors is not None
    _, intensities, illumination = simulator.draw(100, torch.Generator().manual_seed(0))
    valid = simulator.detectors.valid
    assert len({each.numpy().tobytes() for each in valid}) == 3
    for i, frame in enumerate(intensities):
        of_frame = illumination.of(slice(i, i + 1))
        again = [fill_gaps(frame[None] * each, each, of_frame)[0] for each in valid]
        assert [torch.allclose(filled, frame, atol=1e-7) for filled in again].count(True) == 1


def test_background_and_flux_change_the_photons_and_not_what_the_network_is_told() -> None:
    plain = drawn(recipe_with(photons_per_frame=[1e6, 1e6]))[1].sum((1, 2))
    lit = drawn(recipe_with(photons_per_frame=[1e6, 1e6], effects={"background": 100}))[1].sum((1, 2))
    np.testing.assert_allclose(lit.mean() - plain.mean(), 100 * 32**2 / 1e6, rtol=0.1)
    unsteady = drawn(recipe_with(photons_per_frame=[1e6, 1e6], effects={"flux_spread": 0.3}), 500)[1]
    assert unsteady.sum((1, 2)).std() / unsteady.sum((1, 2)).mean() == pytest.approx(0.3, rel=0.15)


def test_saturated_pixels_read_no_more_in_training_either() -> None:
    recipe = recipe_with(photons_per_frame=[1e6, 1e6], effects={"saturation": 500})
    assert drawn(recipe)[1].max() == pytest.approx(500 / 1e6)


def test_effects_from_ranges_are_drawn_for_every_detector() -> None:
    effects = {"gain_spread": [0, 0.1], "background": [0, 5], "gap_px": [0, 3], "n_detectors": 16}
    simulator = Simulator(recipe_with(effects=effects))
    assert simulator.detectors is not None
    backgrounds = simulator.detectors.background.mean((1, 2))
    assert backgrounds.min() < 1.5
    assert backgrounds.max() > 3.5
    assert len({int(n) for n in simulator.detectors.valid.sum((1, 2))}) > 2


def test_the_same_seeds_give_the_same_pairs() -> None:
    varied = recipe_with(
        families=["cells", "circuits", "natural"],
        material={"absorption": [0.1, 0.5], "mixed": 0.5},
        probe={"optics": ["zone_plate", "kb_mirrors"], "central_stop": [0, 0.4], "diffuser_rad": [0, 1]},
        effects={"gain_spread": 0.1, "hot_share": [0, 0.1], "flux_spread": 0.1},
    )
    for first, again in zip(drawn(varied), drawn(varied), strict=True):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(drawn(varied)[0], drawn(varied, seed=1)[0])
    assert not np.array_equal(drawn(varied)[0], drawn(varied.model_copy(update={"seed": 5}))[0])
