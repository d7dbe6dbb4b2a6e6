from pathlib import Path

import pytest
import torch

from launch.config.sections import FinetuneConfig
from launch.training import tuning
from launch.training.data import Simulator
from launch.training.recipe import Recipe
from launch.training.train import start_network
from launch.training.tuning import ORIENTATIONS, LabelledPatterns, Tuner, turned
from operators.network.interface import illuminate
from operators.optics.coherence import blurred_probe
from tests.helpers.launch.tiny_recipe import smallest_recipe

N = 16


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(smallest_recipe(N, n_stages=1))


@pytest.fixture(scope="module")
def probe(recipe: Recipe) -> torch.Tensor:
    return torch.from_numpy(recipe.probe.nominal(N)[None])


@pytest.fixture(scope="module")
def network(recipe):
    network = start_network(recipe, Path(), "cpu")[0].eval()
    network.largest_intensity.fill_(1.0)  # as if training had shown it any pattern
    torch.manual_seed(0)
    torch.nn.init.normal_(network.stages[-1].head.weight, std=0.01)
    return network


@pytest.fixture(scope="module")
def samples(recipe: Recipe, probe: torch.Tensor) -> LabelledPatterns:
    """Return samples of another material under the one probe of a scan."""
    other = recipe.model_copy(
        update={
            "material": recipe.material.model_copy(
                update={"absorption": (0.9, 0.9), "phase_shift_rad": (-0.5, -0.5)}
            )
        }
    )
    objects, _, _ = Simulator(other).draw(48, torch.Generator().manual_seed(0))
    intensities = torch.fft.fft2(illuminate(probe).modes[0] * objects, norm="ortho").abs().square()
    return LabelledPatterns(intensities, objects)


def learn(network, recipe, probe, samples, n_steps, **config) -> Tuner:
    tuner = Tuner(network, recipe, probe, FinetuneConfig(learning_rate=3e-3, **config))
    for _ in range(n_steps):
        tuner.step(samples)
    return tuner


SEEN, UNSEEN = slice(32), slice(32, None)


@pytest.fixture(scope="module")
def tuner(network, recipe, probe, samples) -> Tuner:
    """Return what 20 steps on the first frames have taught."""
    return learn(network, recipe, probe, LabelledPatterns(*(part[SEEN] for part in samples)), 20)


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_pattern_probe_and_object_are_turned_alike(probe, samples, orientation):
    expected = torch.fft.fft2(turned(probe * samples.objects, orientation), norm="ortho").abs().square()
    pattern = torch.fft.fft2(probe * samples.objects, norm="ortho").abs().square()
    found = turned(pattern, orientation, is_corner_origin=True)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_learning_lowers_the_error_on_frames_it_has_not_seen(network, tuner, samples):
    unseen = LabelledPatterns(*(part[UNSEEN] for part in samples))
    assert tuner.error(tuner.network, unseen) < 0.9 * tuner.error(network, unseen)


def test_a_network_learns_from_a_scan_of_more_modes_than_its_recipe_has(network, recipe, probe, samples):
    modes = torch.from_numpy(blurred_probe(probe.numpy(), 1.0, 3))
    waves = illuminate(modes).modes * samples.objects[:, None]
    patterns = torch.fft.fft2(waves, norm="ortho").abs().square().sum(1)
    seen, unseen = (LabelledPatterns(patterns[which], samples.objects[which]) for which in (SEEN, UNSEEN))
    tuner = learn(network, recipe, modes, seen, 20)
    assert tuner.error(tuner.network, unseen) < 0.9 * tuner.error(network, unseen)


def test_the_network_that_came_stays_as_it_is(network, tuner):
    assert tuner.forgotten(network) == 0.0
    moved = zip(network.parameters(), tuner.network.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


def test_a_blend_lies_between_what_was_known_and_what_was_learned(network, tuner, samples):
    for share, expected in ((0.0, network), (1.0, tuner.network)):
        for blended, same in zip(tuner.blended(share).parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(blended, same)
    none, half, full = (tuner.error(tuner.blended(share), samples) for share in (0.0, 0.5, 1.0))
    assert full < none
    assert half < none


def test_the_same_seed_learns_the_same(network, recipe, probe, samples):
    one, other = (learn(network, recipe, probe, samples, 2) for _ in range(2))
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_forgetting_is_measured_on_textures_that_are_never_replayed(
    network, recipe, probe, samples, monkeypatch
):
    textures = {"rehearsed": set(), "replayed": set()}

    class Watched(Simulator):
        def draw(self, n_frames, generator):
            role = "rehearsed" if n_frames == tuning.N_REHEARSED else "replayed"
            textures[role] |= {texture.numpy().tobytes() for texture in self.textures}
            return super().draw(n_frames, generator)

    monkeypatch.setattr(tuning, "Simulator", Watched)
    learn(network, recipe, probe, samples, 2)
    trained_on = {texture.numpy().tobytes() for texture in Simulator(recipe).textures}
    assert len(textures["rehearsed"]) == len(textures["replayed"]) == recipe.n_textures
    assert not textures["rehearsed"] & (textures["replayed"] | trained_on)
    assert not textures["replayed"] & trained_on


def test_a_network_whose_recipe_cuts_no_gradients_learns_on(network, recipe, probe, samples):
    uncut = learn(network, recipe.model_copy(update={"gradient_clip": None}), probe, samples, 1)
    cut = learn(network, recipe.model_copy(update={"gradient_clip": 1e9}), probe, samples, 1)
    for a, b in zip(uncut.network.parameters(), cut.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_replaying_old_samples_keeps_what_was_known(recipe, probe, samples):
    trained = start_network(recipe, Path(), "cpu")[0]
    trained.largest_intensity.fill_(1.0)
    objects, _, _ = Simulator(recipe).draw(64, torch.Generator().manual_seed(1))
    own = torch.fft.fft2(illuminate(probe).modes[0] * objects, norm="ortho").abs().square()
    known = learn(trained, recipe, probe, LabelledPatterns(own, objects), 60).network
    with_replay = learn(known, recipe, probe, samples, 40, replayed=0.5)
    without = learn(known, recipe, probe, samples, 40, replayed=0.0)
    assert with_replay.forgotten(with_replay.network) < without.forgotten(without.network)
