import dataclasses

import numpy as np
import pytest
import torch

from launch.config.sections import FinetuneConfig
from launch.training.finetune import Finetuning
from launch.training.finetune_labels import refined_labels
from launch.training.recipe import Recipe
from launch.training.train import start_network
from launch.training.tuning import Tuner
from operators.geometry import Bounds
from operators.optics.forward import intensities
from stream.files.weights import ModelCard, load_network, save_network
from stream.record.scan import Scan, State
from stream.record.snapshot import write_snapshot
from stream.record.tuned_weights import count_models, newest_version
from stream.stages.loop import WorkerLoop
from tests.helpers.launch.tiny_recipe import smallest_recipe
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import (
    GEOMETRY,
    N_PIXELS,
    Sample,
    close,
    infer,
    make_scan,
    place,
    record,
    snapshot_of,
)

RECIPE = Recipe.model_validate(smallest_recipe(N_PIXELS))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("finetune"))


class Bench:
    """A sample that was refined to the truth, and a network that knows nothing of it."""

    def __init__(self, folder):
        self.scanned, self.weights = Sample(n_side=9), folder / "weights.safetensors"
        network = start_network(RECIPE, folder, "cpu")[0]
        network.largest_intensity.fill_(1.0)
        card = ModelCard(
            name="tiny",
            network="physics",
            config=RECIPE.network_config,
            recipe=RECIPE.model_dump(mode="json"),
            seed=3,
            data="none",
            probe={},
            photons_per_frame=(1.0, 1e9),
        )
        self.card = save_network(self.weights, network, card)
        self.optics = self.scanned.optics(folder)
        rng = np.random.default_rng(0)
        patterns = rng.poisson(intensities(self.scanned.probe, self.scanned.patches))
        self.frames = np.fft.fftshift(patterns, axes=(1, 2)).astype("<u2")

    def __len__(self):
        return len(self.scanned)

    def refined_scan(self, scans, *, visits=20, **snapshot):
        """Return a scan as the other stages leave it."""
        scan, numbers = make_scan(scans), np.arange(len(self))
        record(scan, numbers, self.frames)
        place(scan, numbers, self.scanned.corners)
        infer(scan, numbers, np.ones((len(self), N_PIXELS, N_PIXELS), np.complex64))
        scan.column("visits", writable=True).write(numbers, visits)
        scan.mark("refinement", numbers, State.DONE)
        write_snapshot(scan.folder, self.snapshot(**snapshot))
        scan.counters("refinement", writable=True)["version"] = 1
        return scan

    def snapshot(self, **changes):
        bounds = Bounds(
            *self.scanned.origin.tolist(), *(self.scanned.origin + self.scanned.truth.shape).tolist()
        )
        return snapshot_of(self.scanned.truth, bounds, **{"probe": self.scanned.probe} | changes)

    def labels(self, scan, numbers=None, **changes):
        snapshot = self.snapshot(**changes)
        numbers = np.arange(len(self)) if numbers is None else numbers
        preprocess = self.optics.preprocess(scan)
        return refined_labels(
            scan,
            numbers,
            snapshot,
            self.scanned.probe,
            geometry=GEOMETRY,
            preprocess=preprocess,
            least_visits=12,
        )

    def stage(self, weights=None, **changes):
        seconds = iter(np.arange(0, 1e6, 0.5))
        settings = {"learning_rate": 3e-3, "first_frames": 8, "offer_s": 4.0, "most_forgotten": 10.0}
        return Finetuning(
            FinetuneConfig(**settings | changes),
            self.optics,
            weights or self.weights,
            clock=Clock(),
            processor_clock=lambda: float(next(seconds)),
        )

    def run(self, scans, n_turns, **changes):
        loop = WorkerLoop(self.stage(**changes), scans, Clock())
        for _ in range(n_turns):
            loop.turn()
        return loop


def test_labels_are_the_refined_object_under_each_frame_in_the_scale_of_the_known_probe(tmp_path, bench):
    scan = bench.refined_scan(tmp_path)
    labels = bench.labels(scan, object=bench.scanned.truth / 2, probe=2 * bench.scanned.probe)
    assert len(labels) == len(bench)
    product = labels.objects * bench.scanned.patches.conj()
    np.testing.assert_allclose(np.abs(labels.objects), np.abs(bench.scanned.patches), rtol=1e-4)
    spread = np.angle(product * product.mean(axis=(1, 2), keepdims=True).conj())
    assert np.abs(spread).max() < 1e-3


def test_frames_that_refinement_has_hardly_visited_or_explains_badly_teach_nothing(tmp_path, bench):
    scan = bench.refined_scan(tmp_path)
    scan.column("visits", writable=True).write([0, 1], 11)
    wrong = bench.scanned.truth.copy()
    wrong[-N_PIXELS:, -N_PIXELS:] *= np.exp(1j * np.random.default_rng(0).normal(0, 1, (N_PIXELS, N_PIXELS)))
    some = bench.labels(scan)
    fewer = bench.labels(scan, object=wrong)
    assert len(some) == len(bench) - 2
    assert len(fewer) < len(some)
    flat = bench.labels(scan, object=np.ones_like(bench.scanned.truth))
    assert len(flat) == 0, "no better than the network's own patches, which are flat here"


def test_the_newest_frames_are_kept_aside_and_what_overlaps_them_is_not_learned(tmp_path, bench):
    labels = bench.labels(bench.refined_scan(tmp_path))
    assert labels.is_held_out.sum() == len(bench) // 4
    assert labels.is_held_out[-len(bench) // 4 + 1 :].all()
    assert not (labels.is_held_out & labels.is_learned).any()
    assert 0 < labels.is_learned.sum() < (~labels.is_held_out).sum()


@pytest.mark.slow
def test_a_better_version_is_published_with_its_history(tmp_path, bench):
    scan = bench.refined_scan(tmp_path)
    bench.run(tmp_path, 60)
    version, path = newest_version(Scan(scan.folder))
    assert version >= 1
    network, card = load_network(path)
    assert card.model_id != bench.card.model_id
    first = load_network(path.with_name("0001.safetensors"))[1]
    assert first.parent == bench.card.model_id
    assert "0000-series" in first.tuned_on
    assert first.metrics["error"] < 0.97 * first.metrics["before"]
    assert not network.training
    assert (Scan(scan.folder).states("finetune") == State.DONE).all()


@pytest.mark.parametrize("limits", [{"least_gain": 1.0}, {"budget_s": 1.0}, {"first_frames": 500}])
def test_nothing_is_published_that_is_not_better_or_had_no_budget(tmp_path, bench, limits):
    scan = bench.refined_scan(tmp_path)
    bench.run(tmp_path, 14, **limits)
    assert newest_version(Scan(scan.folder)) == (0, None)


def test_nothing_is_published_that_has_forgotten_more_than_is_allowed(tmp_path, bench, monkeypatch):
    monkeypatch.setattr(Tuner, "forgotten", lambda self, network: 0.2)
    for allowed, is_published in ((0.1, False), (0.2, True)):
        scan = bench.refined_scan(tmp_path / str(allowed))
        bench.run(tmp_path / str(allowed), 14, most_forgotten=allowed)
        assert (newest_version(Scan(scan.folder))[0] > 0) == is_published


def test_learning_ends_with_the_inference_and_the_scan_is_left(tmp_path, bench):
    scan = bench.refined_scan(tmp_path)
    close(scan, "subscriber", "positions", "inference", "refinement")
    bench.run(tmp_path, 4)
    scan = Scan(scan.folder)
    assert scan.count("finetune", "closed") == 1
    assert newest_version(scan) == (0, None)


def test_a_restart_goes_on_from_the_version_published_last(tmp_path, bench):
    scan = bench.refined_scan(tmp_path)
    counters = scan.counters("finetune", writable=True)
    network, _ = load_network(bench.weights)
    torch.nn.init.normal_(network.stages[-1].head.weight, std=0.01)
    card = save_network(scan.folder / "weights" / "0001.safetensors", network, bench.card)
    counters["version"] = 1
    work = bench.stage().open(Scan(scan.folder))
    assert work.card.model_id == card.model_id
    assert work.counts() == {"versions": 1, "steps": 0}


def test_weights_without_a_recipe_cannot_be_tuned(tmp_path, bench):
    network, card = load_network(bench.weights)
    save_network(tmp_path / "bare.safetensors", network, dataclasses.replace(card, recipe={}))
    with pytest.raises(ValueError, match="recipe cannot be read"):
        bench.stage(weights=tmp_path / "bare.safetensors")


def test_who_made_what_is_counted_by_version(tmp_path):
    scan = make_scan(tmp_path)
    numbers = np.arange(5)
    assert count_models(scan, numbers) == {}
    scan.column("model", writable=True).write(numbers, [7, 7, 0xABCDEF012345, 7, 0])
    assert count_models(scan, numbers) == {"000000000007": 3, "abcdef012345": 1}
