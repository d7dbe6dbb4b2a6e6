import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from launch.config.reading import ConfigError
from launch.training.recipe import DEMO_RECIPE, ProbeRecipe, Recipe, read_recipe
from operators.network.registry import NETWORKS
from operators.optics.probe import kb_mirror_probe, with_power
from operators.optics.samples import TRAINING_FAMILIES


def with_changes(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(yaml.safe_load(DEMO_RECIPE.read_text()) | changes))
    return path


def test_the_demo_recipe_is_valid_and_describes_its_data() -> None:
    recipe = read_recipe()
    assert recipe.n_pixels == 64
    assert "8000 to 2e+06 photons" in recipe.describe_data()
    assert "zone-plate probes" in recipe.describe_data()


@pytest.mark.parametrize("path", sorted(DEMO_RECIPE.parent.glob("train-*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_of_a_training_is_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert NETWORKS[recipe.network](**recipe.network_config).n_pixels == recipe.n_pixels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_steps": 0}, "recipe.yaml: n_steps: wanted more than 0, got 0"),
        ({"batchsize": 5}, "recipe.yaml: batchsize: unknown key, did you mean 'batch_size'?"),
        ({"scan": {"epoch": 3}}, "scan.epoch: unknown key, did you mean 'epochs'?"),
        ({"n_steps": True}, "n_steps: wanted something else than true or false, got True"),
        ({"epochs": 5}, "recipe.yaml: epochs: unknown key; the keys here are name, seed"),
        ({"photons_per_frame": [1e6, -1]}, r"photons_per_frame\.1: wanted more than 0, got -1"),
        ({"photons_per_frame": [1e6, 1e4]}, r"must be \[least, most\], got \[1000000\.0, 10000\.0\]"),
        ({"texture_px": 32}, "texture_px = 32 is smaller than the patterns, 64"),
        ({"network_config": {}}, "network_config.n_pixels is missing"),
        ({"name": "a/b"}, "name: wanted text like"),
    ],
)
def test_a_wrong_key_is_named_with_what_was_wanted_and_found(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = with_changes(tmp_path / "recipe.yaml", **changes)
    with pytest.raises(ConfigError, match=message) as refusal:
        read_recipe(path)
    assert str(refusal.value).startswith("recipe.yaml: ")


def test_every_wrong_key_is_reported_at_once(tmp_path: Path) -> None:
    path = with_changes(tmp_path / "recipe.yaml", n_steps=0, batch_size=0)
    with pytest.raises(ValueError, match=r"(?s)n_steps.*batch_size"):
        read_recipe(path)


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: [")
    with pytest.raises(ValueError, match=r"recipe\.yaml:1: not YAML"):
        read_recipe(path)


def test_random_probes_stay_near_the_nominal_one() -> None:
    recipe = ProbeRecipe(
        pupil_radius_px=12, pupil_spread=0.05, disc_radius_px=14, disc_spread=0.1, roughness_rad=0.1
    )
    nominal, rng = recipe.nominal(64), np.random.default_rng(0)
    for _ in range(5):
        probe = recipe.random(64, rng)
        assert probe.shape == (1, 64, 64)
        assert np.sum(np.abs(probe) ** 2) == pytest.approx(1, rel=1e-4)
        assert 0.8 < abs(np.vdot(nominal, probe)) < 0.9999


def test_ptychonet_is_trained_as_in_its_paper() -> None:
    recipe = read_recipe(DEMO_RECIPE.with_name("train-ptychonet.yaml"))
    assert (recipe.optimiser, recipe.learning_rate, recipe.batch_size) == ("adam", 5e-4, 64)
    assert (recipe.schedule, recipe.warm_up_steps) == ("steps", 1)
    assert recipe.decay_factor < 1
    assert recipe.n_steps > recipe.decay_steps
    assert (recipe.weight_decay, recipe.gradient_clip) == (0, None)
    assert recipe.loss == "amplitude_phase"
    network = NETWORKS[recipe.network](**recipe.network_config)
    assert (len(network.down), len(network.up)) == (5, 5)
    assert sum(values.numel() for values in network.parameters()) == pytest.approx(8e6, rel=0.05)


@pytest.mark.parametrize("name", ["train-ptychonet", "train-ptychonn"])
def test_networks_of_the_literature_see_the_samples_of_the_default_one(name: str) -> None:
    recipe, default = (read_recipe(DEMO_RECIPE.with_name(f"{file}.yaml")) for file in (name, "train-cpu"))
    data = {"material", "effects", "photons_per_frame", "families", "n_textures", "texture_px"}
    data |= {"blended", "toned", "warped", "evaluation"}
    assert recipe.model_dump(include=data) == default.model_dump(include=data)
    np.testing.assert_array_equal(recipe.probe.nominal(64), default.probe.nominal(64))


def test_the_varied_recipe_is_valid_and_its_probes_differ() -> None:
    recipe = read_recipe(DEMO_RECIPE.with_name("train-varied.yaml"))
    assert "zone-plate and kb-mirrors probes" in recipe.describe_data()
    assert "exp(-([0..0.6] + [0.3..2.5]i) t), 30% with independent phase" in recipe.describe_data()
    rng = np.random.default_rng(0)
    probes = [recipe.probe.random(64, rng) for _ in range(4)]
    strongest = [with_power(probe[0], 1.0) for probe in probes]
    assert max(abs(np.vdot(a, b)) for a, b in itertools.combinations(strongest, 2)) < 0.95
    margin = (64 - recipe.network_config["crop"]) // 2
    for probe in probes:
        assert (np.abs(probe[:, margin:-margin, margin:-margin]) ** 2).sum() > 0.95


def test_the_varied_recipe_varies_all_that_can_be() -> None:
    recipe = read_recipe(DEMO_RECIPE.with_name("train-varied.yaml"))
    fixed = []
    for section in (recipe.probe, recipe.material, recipe.effects):
        for name, bounds in section:
            is_range = isinstance(bounds, tuple) and not isinstance(bounds[0], str)
            if bounds == 0 or (is_range and not bounds[0] < bounds[1]) or (bounds is None and name != "path"):
                fixed.append(name)
    assert fixed == []
    assert min(recipe.blended, recipe.toned, recipe.warped) > 0
    assert recipe.probe.n_modes > 1
    assert set(recipe.families) == set(TRAINING_FAMILIES)
    assert recipe.evaluation.draws_probes
    assert "256 zone-plate and kb-mirrors probes on 64 imperfect detectors" in recipe.describe_data()


def test_probes_are_as_incoherent_as_their_ranges_say() -> None:
    fields = {"pupil_radius_px": 6, "disc_radius_px": 7, "n_modes": 4}

    def strongest(**causes: object) -> float:
        """Share of the power in the strongest mode, of a random probe and of the nominal one alike."""
        recipe = ProbeRecipe.model_validate(fields | causes)
        probes = recipe.random(32, np.random.default_rng(0)), recipe.nominal_modes(32)
        assert [probe.shape for probe in probes] == [(4, 32, 32)] * 2
        shares = [float((np.abs(probe[0]) ** 2).sum()) for probe in probes]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)
        return shares[0]

    assert strongest() == pytest.approx(1, abs=1e-4)
    assert strongest(coherence_px=40) > strongest(coherence_px=10) + 0.1
    assert strongest(travel_px=1) > strongest(travel_px=4) + 0.1
    assert strongest(blur_px=0.3) > strongest(blur_px=0.3, travel_px=2, coherence_px=30) + 0.1


def test_random_probes_fly_along_rows_or_columns() -> None:
    recipe = ProbeRecipe(pupil_radius_px=12, disc_radius_px=14, travel_px=5.0, n_modes=3)
    rng, directions = np.random.default_rng(0), set()
    for _ in range(8):
        light = (np.abs(recipe.random(64, rng)) ** 2).sum(axis=0)
        along_column, along_row = (np.abs(np.diff(light, axis=axis)).sum() for axis in (0, 1))
        directions.add("column" if along_column < along_row else "row")
    assert directions == {"column", "row"}


def test_a_measured_probe_is_the_nominal_one_and_training_defocuses_it(tmp_path: Path) -> None:
    measured = 30 * kb_mirror_probe(64, (12.0, 8.0), (14.0, 10.0))
    np.save(tmp_path / "probe.npy", measured)
    recipe = ProbeRecipe.model_validate(
        {"optics": "file", "path": "probe.npy", "pupil_radius_px": 10, "disc_radius_px": 12}
        | {"disc_spread": 0.2},
        context={"folder": tmp_path},
    )
    np.testing.assert_allclose(recipe.nominal(64), measured / 30, atol=1e-6)
    rng = np.random.default_rng(0)
    overlaps = [abs(np.vdot(recipe.nominal(64), recipe.random(64, rng)[0])) for _ in range(5)]
    assert min(overlaps) < 0.97
    assert min(overlaps) > 0.7
    with pytest.raises(ValueError, match=r"64 x 64 pixels, the patterns of the recipe 32 x 32"):
        recipe.nominal(32)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"path": "probe.npy"}, "`path` is that of optics `file`"),
        ({"optics": []}, "at least 1 item"),
        ({"central_stop": [0.4, 0.1]}, r"a range is \[least, most\], got \[0.4, 0.1\]"),
        ({"central_stop": 1.0}, "less than 1"),
        ({"blur_px": [0.0, 1.5]}, r"blur_px = 1\.5 make .* give n_modes of 2 or more"),
        ({"travel_px": 2, "coherence_px": [9, 20]}, r"travel_px = 2, coherence_px = 9 make .* n_modes of 2"),
    ],
)
def test_probes_that_make_no_sense_are_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ProbeRecipe.model_validate({"pupil_radius_px": 12, "disc_radius_px": 14} | section)


def test_held_out_families_cannot_be_trained_on() -> None:
    fields = read_recipe().model_dump() | {"families": ["smooth", "glyphs"]}
    with pytest.raises(ValidationError, match=r"families must be some of smooth.*natural"):
        Recipe.model_validate(fields)
