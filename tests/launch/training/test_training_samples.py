import sys

import numpy as np
import pytest

from launch.training import samples
from launch.training.recipe import MaterialRecipe
from launch.training.samples import draw_object, draw_texture, draw_textures, unseen
from operators.optics.samples import HELD_OUT_FAMILIES, PHOTOGRAPHS, TRAINING_FAMILIES

FIXED = MaterialRecipe(absorption=0.3, phase_shift_rad=1.2)


@pytest.mark.parametrize("name", [name for names in PHOTOGRAPHS.values() for name in names])
def test_every_photograph_lies_in_the_wheel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import skimage.data

    monkeypatch.setitem(sys.modules, "pooch", None)  # what would download
    assert min(getattr(skimage.data, name)().shape[:2]) >= 256


def test_what_a_network_is_judged_by_is_not_what_it_saw() -> None:
    assert not set(PHOTOGRAPHS["natural"]) & set(PHOTOGRAPHS["natural_unseen"])
    assert unseen("natural") == "natural_unseen"
    assert unseen("voronoi") == "voronoi"
    assert not set(TRAINING_FAMILIES) & {*HELD_OUT_FAMILIES, "natural_unseen"}


def test_photographs_without_scikit_image_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        samples, "_photograph", samples._photograph.__wrapped__
    )  # another test may have read it
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(ValueError, match=r"pip install 'ptychostream\[train\]'"):
        draw_texture("natural_unseen", (64, 64), np.random.default_rng(5))


def test_objects_of_a_fixed_material_are_their_textures() -> None:
    object_ = draw_object("voronoi", FIXED, (64, 64), np.random.default_rng(0))
    thickness = draw_texture("voronoi", (64, 64), np.random.default_rng(0))
    np.testing.assert_allclose(object_, np.exp(-(0.3 + 1.2j) * thickness), rtol=1e-5)


def test_mixed_objects_have_a_phase_of_their_own() -> None:
    mixed = FIXED.model_copy(update={"mixed": 1.0})
    object_ = draw_object("voronoi", mixed, (64, 64), np.random.default_rng(0))
    correlation = np.corrcoef(np.abs(object_).ravel(), np.angle(object_).ravel())[0, 1]
    assert abs(correlation) < 0.3


def test_materials_from_ranges_differ_from_object_to_object() -> None:
    material = MaterialRecipe.model_validate({"absorption": [0, 0.5], "phase_shift_rad": [0.5, 2]})
    rng = np.random.default_rng(0)
    drawn = [material.random(rng) for _ in range(20)]
    assert material.complex == 0.25 + 1.25j
    assert min(value.imag for value in drawn) < 0.8
    assert max(value.imag for value in drawn) > 1.7


def test_textures_are_the_same_from_any_number_of_processes() -> None:
    def drawn(n_processes: int) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        return list(draw_textures(("voronoi", "smooth", "power_law"), 20, (24, 24), 0.5, rng, n_processes))

    one, two = drawn(1), drawn(2)
    np.testing.assert_array_equal(one, two)
    assert len(np.unique(np.stack(one), axis=0)) == 20
