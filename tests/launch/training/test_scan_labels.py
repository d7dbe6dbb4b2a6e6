from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from launch.beamline.simulation import SimulatedScan, Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.offline.task import Task
from launch.training import scan_labels
from launch.training.data import ScanSampler, open_source
from launch.training.recipe import DEMO_RECIPE, Recipe, read_recipe
from launch.training.scan_labels import ScanLabels, held_out_error, labels_of, with_scan
from launch.training.train import train
from operators.network.predictor import Predictor
from operators.optics.probe import probe_tilt, with_power
from stream.files.weights import load_network

pytestmark = pytest.mark.usefixtures("short_calibration")

N = 32
TINY = {
    "name": "tiny",
    "seed": 3,
    "network_config": {"n_pixels": N, "crop": 24, "widths": [16, 32], "unshuffle": 1, "n_stages": 2},
    "probe": {"pupil_radius_px": 6, "disc_radius_px": 7, "disc_spread": 0.05, "n_probes": 4},
    "photons_per_frame": [1e5, 1e6],
    "families": ["smooth", "voronoi"],
    "n_textures": 20,
    "texture_px": 64,
    "n_steps": 4,
    "batch_size": 4,
    "report_every": 2,
    "evaluation": {"photons_per_frame": 1e5, "step_px": 4, "n_positions": 4},
    "scan": {"epochs": 20, "held_out": 0.5},
}


def recipe_file(folder: Path, name: str = "tiny.yaml", **changes: Any) -> Path:
    fields = yaml.safe_load(DEMO_RECIPE.read_text()) | {"initial_weights": None} | TINY | changes
    (folder / name).write_text(yaml.safe_dump(fields))
    return folder / name


def simulated(folder: Path, **changes: Any) -> SimulatedScan:
    """A scan of filaments, of a material that delays more and absorbs less, with the probe of the recipe."""
    material = {"absorption": 0.05, "phase_shift_rad": 2.0}
    recipe = recipe_file(folder, "sample.yaml", material=material)
    simulation = Simulation(
        n_rows=8, n_columns=8, step_px=4, photons_per_frame=3e5, family="filaments", seed=1, recipe=recipe
    )
    scan = simulate_scan(replace(simulation, **changes))
    write_scan(folder / "scan.cxi", scan, "test")
    return scan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a scan, and after `matched` of its labels."""
    return tmp_path_factory.mktemp("scan")


@pytest.fixture(scope="module")
def matched(folder: Path) -> Recipe:
    simulated(folder)
    return with_scan(read_recipe(recipe_file(folder)), str(folder / "scan.cxi"), folder)


def test_labels_are_the_refined_scan(matched: Recipe, folder: Path) -> None:
    labels = labels_of(matched, folder)
    assert labels.patterns.shape == (64, N, N)
    assert labels.valid.all()
    assert (labels.corners >= 0).all()
    assert (labels.corners + N <= labels.object.shape).all()
    windows = [labels.object[row : row + N, column : column + N] for row, column in labels.corners]
    waves = labels.probe[None] * np.stack(windows)[:, None]
    expected = (np.abs(np.fft.fft2(waves, norm="ortho")) ** 2).sum(axis=1)
    residual = np.square(np.sqrt(expected) - np.sqrt(labels.patterns)).sum() / labels.patterns.sum()
    assert residual < 0.01


def test_patterns_off_centre_give_the_probe_a_ramp_and_not_the_object(tmp_path: Path) -> None:
    scan = simulated(tmp_path)
    write_scan(tmp_path / "moved.cxi", replace(scan, frames=np.roll(scan.frames, 2, axis=1)), "test")
    matched = with_scan(read_recipe(recipe_file(tmp_path)), str(tmp_path / "moved.cxi"), tmp_path)
    labels = labels_of(matched, tmp_path)
    known = np.zeros(labels.object.shape)
    for row, column in labels.corners:
        known[row + 8 : row + N - 8, column + 8 : column + N - 8] = 1
    of_object, of_probe = probe_tilt((labels.object * known)[None]), probe_tilt(labels.probe)
    np.testing.assert_allclose(of_object, 0, atol=0.03)
    np.testing.assert_allclose(of_probe, (2 * np.pi * 2 / N, 0), atol=0.05)
    np.testing.assert_array_equal(np.load(tmp_path / "tiny-probe.npy"), labels.probe)


def test_a_recipe_may_take_the_probe_of_the_scan(folder: Path, matched: Recipe, tmp_path: Path) -> None:
    probe = TINY["probe"] | {"optics": "file"}
    taken = with_scan(
        read_recipe(recipe_file(tmp_path, probe=probe)), str(folder / "scan.cxi"), tmp_path
    ).probe.nominal(N)
    np.testing.assert_allclose(taken, with_power(labels_of(matched, folder).probe[0], 1.0), atol=1e-6)
    with pytest.raises(ValueError, match="optics `file` need a `path`, or a section `scan`"):
        read_recipe(recipe_file(tmp_path, probe=probe, scan=None))


def test_every_sample_of_a_scan_explains_its_pattern(matched: Recipe, folder: Path) -> None:
    """Object, pattern and probe are turned together, or the far field of probe and object is another."""
    sampler = ScanSampler(matched, labels_of(matched, folder))
    objects, intensities, illumination = sampler.draw(200, torch.Generator().manual_seed(0))
    waves = illumination.modes.numpy() * objects.numpy()[:, None]
    expected = (np.abs(np.fft.fft2(waves, norm="ortho")) ** 2).sum(axis=1)
    measured = intensities.numpy()
    residual = np.square(np.sqrt(expected) - np.sqrt(measured)).sum((1, 2)) / measured.sum((1, 2))
    assert residual.max() < 0.02
    assert len({modes.numpy().tobytes() for modes in illumination.modes}) == 8
    counts = measured * illumination.photons.numpy()
    np.testing.assert_allclose(counts, counts.round(), rtol=1e-5, atol=0.01)


def test_held_out_frames_are_never_drawn(matched: Recipe, folder: Path) -> None:
    labels = labels_of(matched, folder)
    dark = labels.patterns.copy()
    dark[:32] = 0
    only_measured = matched.model_copy(update={"scan": matched.scan.model_copy(update={"measured": 1.0})})
    _, intensities, _ = ScanSampler(only_measured, replace(labels, patterns=dark)).draw(
        200, torch.Generator().manual_seed(0)
    )
    assert (intensities == 0).all()


def test_a_batch_is_mixed_of_scan_and_recipe(matched: Recipe, folder: Path) -> None:
    objects, intensities, illumination = open_source(matched, folder).draw(
        16, torch.Generator().manual_seed(0)
    )
    assert {len(values) for values in (objects, intensities, *illumination)} == {16}
    absorption, delay = -np.log(np.abs(objects.numpy())), -np.angle(objects.numpy())
    is_of_recipe = np.abs(delay - 4 * absorption).max(axis=(1, 2)) < 1e-4
    assert is_of_recipe.tolist() == [True] * 8 + [False] * 8


def test_the_card_says_which_scan(matched: Recipe, folder: Path) -> None:
    card = train(matched, folder)
    assert "50% from scan scan" in card.data
    assert card.recipe["scan"]["sha256"] == matched.scan.sha256
    assert 0 < card.metrics["scan_patch_c"] < 2
    _, loaded = load_network(folder / "tiny.safetensors")
    assert loaded == card


def test_a_recipe_with_a_scan_needs_the_scan(matched: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="say which one with --from-scan SCAN"):
        train(read_recipe(recipe_file(tmp_path)), tmp_path)
    (tmp_path / matched.scan.labels).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"tiny-labels-.*npz is not the file .* delete it"):
        train(matched, tmp_path)


def test_labels_that_are_there_are_used_again_until_scan_or_refinement_change(
    matched: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class RefinedAgainError(Exception):
        pass

    def refuse(task: Task) -> ScanLabels:
        raise RefinedAgainError

    monkeypatch.setattr(scan_labels, "make_labels", refuse)
    scan = str(folder / "scan.cxi")
    other_use = recipe_file(tmp_path, scan=TINY["scan"] | {"share": 0.3}, n_steps=7)
    assert with_scan(read_recipe(other_use), scan, folder).scan.sha256 == matched.scan.sha256
    other_refinement = recipe_file(tmp_path, scan=TINY["scan"] | {"epochs": 21})
    with pytest.raises(RefinedAgainError):
        with_scan(read_recipe(other_refinement), scan, folder)
    simulated(tmp_path, seed=2)
    with pytest.raises(RefinedAgainError):
        with_scan(read_recipe(recipe_file(tmp_path)), str(tmp_path / "scan.cxi"), folder)


def test_a_scan_of_other_patterns_is_refused(tmp_path: Path) -> None:
    simulated(tmp_path)
    with pytest.raises(ValueError, match="32 x 32 pixels, the recipe 64 x 64"):
        with_scan(read_recipe(), str(tmp_path / "scan.cxi"), tmp_path)


@pytest.mark.slow
def test_matching_a_scan_of_an_unseen_material_lowers_the_error_on_its_other_half(tmp_path: Path) -> None:
    truth = simulated(tmp_path, n_rows=16, n_columns=12)
    # A schedule of its own: that of the demo's recipe is for 14,000 steps.
    schedule = {"warm_up_steps": 15, "decay_steps": 60, "blended": 0.0, "toned": 0.0}
    longer = {"n_steps": 150, "batch_size": 16, "n_textures": 100, **schedule}
    recipe = read_recipe(recipe_file(tmp_path, **longer))
    matched = with_scan(recipe, str(tmp_path / "scan.cxi"), tmp_path)
    corners = np.rint(truth.geometry.to_pixels(truth.true_positions_m)).astype(np.int64)
    # Judged by the truth, not by the labels.
    known = replace(labels_of(matched, tmp_path), object=truth.object, probe=truth.probe, corners=corners)
    errors = {}
    for name, trained in (("plain", recipe.model_copy(update={"scan": None})), ("matched", matched)):
        train(trained, tmp_path / name if name == "plain" else tmp_path)
        network, _ = load_network((tmp_path / name if name == "plain" else tmp_path) / "tiny.safetensors")
        errors[name] = held_out_error(Predictor(network, truth.probe), known, 0.5)["scan_patch_c"]
    assert errors["matched"] < 0.9 * errors["plain"]
