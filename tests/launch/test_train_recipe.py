from pathlib import Path

import numpy as np
import pytest
import yaml

from launch.recipe import DEMO_RECIPE, ProbeRecipe, demo_probe, read_recipe


def with_changes(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(yaml.safe_load(DEMO_RECIPE.read_text()) | changes))
    return path


def test_the_demo_recipe_is_valid_and_describes_its_data() -> None:
    recipe = read_recipe()
    assert recipe.n_pixels == 64
    assert "40000 to 4e+06 photons" in recipe.describe_data()
    assert "zone-plate probes" in recipe.describe_data()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_steps": 0}, "n_steps: Input should be greater than or equal to 1, got 0"),
        ({"epochs": 5}, "epochs: Extra inputs are not permitted, got 5"),
        ({"photons_per_frame": [1e6, -1]}, r"photons_per_frame\.1: Input should be greater than 0, got -1"),
        ({"photons_per_frame": [1e6, 1e4]}, r"must be \[least, most\], got \[1000000\.0, 10000\.0\]"),
        ({"texture_px": 32}, "texture_px = 32 is smaller than the patterns, 64"),
        ({"network_config": {}}, "network_config.n_pixels is missing"),
        ({"name": "a/b"}, "name: String should match pattern"),
    ],
)
def test_a_wrong_key_is_named_with_what_was_wanted_and_found(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = with_changes(tmp_path / "recipe.yaml", **changes)
    with pytest.raises(ValueError, match=message) as refusal:
        read_recipe(path)
    assert str(path) in str(refusal.value)


def test_every_wrong_key_is_reported_at_once(tmp_path: Path) -> None:
    path = with_changes(tmp_path / "recipe.yaml", n_steps=0, batch_size=0)
    with pytest.raises(ValueError, match=r"(?s)n_steps.*batch_size"):
        read_recipe(path)


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: [")
    with pytest.raises(ValueError, match="is not YAML"):
        read_recipe(path)


def test_the_demo_probe_carries_the_photons_asked_for() -> None:
    probe = demo_probe(4e5)
    assert probe.shape == (1, 64, 64)
    assert probe.dtype == np.complex64
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(4e5, rel=1e-4)


def test_random_probes_stay_near_the_nominal_one() -> None:
    recipe = ProbeRecipe(
        pupil_radius_px=12, pupil_spread=0.05, disc_radius_px=14, disc_spread=0.1, roughness_rad=0.1
    )
    nominal, rng = recipe.nominal(64), np.random.default_rng(0)
    for _ in range(5):
        probe = recipe.random(64, rng)
        assert np.sum(np.abs(probe) ** 2) == pytest.approx(1, rel=1e-4)
        assert 0.8 < abs(np.vdot(nominal, probe)) < 0.9999
