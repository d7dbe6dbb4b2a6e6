"""What the network is worth, beside published figures, a constant object, and iterations from a flat start.

Fresh specimens of every family that training draws from, and of those that it never does, are scanned with
the demo's probe and photons; every arm gets the same counts and the same known probe. Errors are given in
both definitions (`operators.metrics.errors.NRMSE`), the constant object beside them; costs are processor
time of one thread.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track

from launch.config.config import DEMO_WEIGHTS
from launch.training.evaluate import (
    EVALUATION_SEED,
    evaluation_probe,
    scan_figures,
    simulate_scans,
    trained_families,
)
from launch.training.recipe import Recipe
from operators.arrays import abs2
from operators.network.interface import Network
from operators.network.predictor import Predictor
from operators.optics.samples import HELD_OUT_FAMILIES
from stream.files.weights import load_network
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.network.arena import MANY_EPOCHS, SEEDED_EPOCHS, Arena, Arm
from tests.benchmarks.network.blind import blind
from tests.benchmarks.network.effects import effects_figures
from tests.benchmarks.network.finetune import finetune
from tests.benchmarks.network.gpu import GPU_TARGETS, gpu_figures
from tests.benchmarks.network.patch_errors import patch_error, patch_figures
from tests.benchmarks.network.resolution import siemens
from tests.benchmarks.network.speed import measure_speed, pairs_per_cpu_s
from tests.benchmarks.network.uncertainty import uncertainty

SEEDS = tuple(EVALUATION_SEED + i for i in range(2))
MORE_SEEDS = tuple(EVALUATION_SEED + i for i in range(3))  # where a scan costs seconds
RPIE_STOPS = (1, 2, 5, 10, 20, 30, 50, 100, 200)
EPIE_STOPS = (20, 50, 100, 200)
FEW_PHOTONS_PER_PIXEL, MANY_PHOTONS = 10, 1e6
PAPER = {"nrmse_loose_cnn": 0.12, "ood_increase": 0.30, "equivalent_flat_epochs": 200}
TARGETS: dict[str, tuple[str, Any]] = {
    "nrmse_loose_cnn": ("<=", 0.08),
    "nrmse_c_cnn": ("<=", 0.28),
    "c_mosaic": ("<=", 0.13),
    "nrmse_loose_mosaic": ("<=", 0.05),
    "flat_epochs_worth": (">=", 30),
    "nrmse_loose_cnn20": ("<=", 0.04),
    "cnn20_over_epie200": ("<=", 1.0),
    "cnn20_over_mosaic_worst": ("<=", 1.0),
    "equivalent_flat_epochs": (">=", 100),
    "gate_harm": ("<=", 1.05),
    "photons_ratio": ("<=", 1.10),
    "ood_increase": ("<=", 0.20),
    "siemens_halfpitch_ratio": ("<=", 1.2),
    "ms_per_pattern": ("<=", 2.0),
    "ptychonet_over_physics": (">=", 3.0),
    "coverage68": ("in", (0.63, 0.73)),
    "coverage95": ("in", (0.92, 0.98)),
    "coverage95_surest": ("in", (0.88, 0.99)),
    "ood_is_covered_or_alarmed": (">=", 1.0),
    "ause_ratio": ("<=", 0.5),
    "finetune_gain": (">=", 0.30),
    "finetune_forgetting": ("<=", 0.10),
    "pairs_per_cpu_s": (">=", 5000),
} | GPU_TARGETS


class Specimen(NamedTuple):
    """All arms of one object."""

    arena: Arena
    mosaic: Arm
    seeded: Arm


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures; only on a GPU something is written to `folder`."""
    torch.set_num_threads(1)
    network, card = load_network(DEMO_WEIGHTS)
    recipe = Recipe.model_validate(card.recipe)
    predictor = Predictor(network, evaluation_probe(recipe))
    matched = [_specimen(recipe, predictor, *which) for which in _shown(trained_families(recipe), "matched")]
    unseen = [_specimen(recipe, predictor, *which) for which in _shown(HELD_OUT_FAMILIES, "unseen")]
    yield _mosaics(matched) | _refined(matched) | _costs(matched) | _gate(unseen, matched)
    yield {"by_object": {"matched": _by_object(matched), "unseen": _by_object(unseen)}}
    yield patch_figures(network, recipe, MORE_SEEDS) | _photons(recipe, network)
    yield siemens(network, recipe, MORE_SEEDS)
    yield effects_figures(network, recipe)
    yield uncertainty(network, card)
    yield finetune(network, card)
    yield blind(network, card)
    yield {"pairs_per_cpu_s": pairs_per_cpu_s(_of_32_pixels(recipe))} | measure_speed(network)
    yield gpu_figures(folder)


def _shown(families: Sequence[str], title: str) -> Any:
    return track([(family, seed) for seed in SEEDS for family in families], f"{title} objects")


def _specimen(recipe: Recipe, predictor: Predictor, family: str, seed: int) -> Specimen:
    (scan,) = simulate_scans(recipe.evaluated_with(objects_per_family=1), [family], seed)
    arena = Arena(scan, evaluation_probe(recipe))
    arm, mosaic = arena.network(predictor)
    return Specimen(arena, arm, arena.seeded(mosaic))


def _of_32_pixels(recipe: Recipe) -> Recipe:
    """Return the recipe with patterns of half the size: training pairs are counted at 32 x 32 pixels."""
    network = recipe.network_config | {"n_pixels": recipe.n_pixels // 2, "crop": recipe.n_pixels // 2}
    return recipe.model_copy(update={"network_config": network})


def _photons(recipe: Recipe, network: Network) -> dict[str, float]:
    """Return the error at few photons over that at many, of patches and of mosaics, pooled over objects."""

    def errors(photons_per_frame: float) -> tuple[float, float]:
        some = recipe.evaluated_with(objects_per_family=1, photons_per_frame=photons_per_frame)
        probe = evaluation_probe(some)
        predictor, weights = Predictor(network, probe), abs2(probe).sum(axis=0)
        scans = (scan for seed in SEEDS for scan in simulate_scans(some, trained_families(some), seed))
        whole = scan_figures(predictor, weights, scans)
        return patch_error(network, some, MORE_SEEDS), whole["mosaic_c"]

    few, many = errors(FEW_PHOTONS_PER_PIXEL * recipe.n_pixels**2), errors(MANY_PHOTONS)
    return {"photons_ratio": few[0] / many[0], "photons_ratio_mosaic": few[1] / many[1]}


def _mosaics(matched: Sequence[Specimen]) -> dict[str, float]:
    def worth(*, levels: bool) -> float:
        return statistics.median(
            s.arena.epochs_to("rpie", s.mosaic.error.c, RPIE_STOPS, levels=levels) for s in matched
        )

    return {
        "c_mosaic": statistics.mean(s.mosaic.error.c for s in matched),
        "nrmse_loose_mosaic": statistics.mean(s.mosaic.error.loose for s in matched),
        "flat_epochs_worth": worth(levels=False),
        "flat_epochs_worth_levelled": worth(levels=True),
    }


def _refined(matched: Sequence[Specimen]) -> dict[str, float]:
    """Return the errors of network + 20 epochs and of flat starts.

    The former is levelled as it closes, as in a run. Flat starts are the algorithms as published, and those
    that end in `_levelled` what this engine makes of them: there the start is the only difference.
    """

    def mean(pick: Any) -> Any:
        errors = [pick(specimen).error for specimen in matched]
        return statistics.mean(e.c for e in errors), statistics.mean(e.loose for e in errors)

    def equal(*, levels: bool) -> float:
        return statistics.median(
            s.arena.epochs_to("epie", s.seeded.error.c, EPIE_STOPS, levels=levels) for s in matched
        )

    c, loose = mean(lambda s: s.seeded)
    c_epie, loose_epie = mean(lambda s: s.arena.flat("epie", MANY_EPOCHS))
    c_levelled, loose_levelled = mean(lambda s: s.arena.flat("epie", MANY_EPOCHS, levels=True))
    return {
        "nrmse_c_cnn20": c,
        "nrmse_loose_cnn20": loose,
        "nrmse_c_epie200": c_epie,
        "nrmse_loose_epie200": loose_epie,
        "nrmse_c_epie200_levelled": c_levelled,
        "nrmse_loose_epie200_levelled": loose_levelled,
        "nrmse_c_rpie20": mean(lambda s: s.arena.flat("rpie", SEEDED_EPOCHS))[0],
        "nrmse_c_rpie20_levelled": mean(lambda s: s.arena.flat("rpie", SEEDED_EPOCHS, levels=True))[0],
        "cnn20_over_epie200": c / c_epie,
        "cnn20_over_epie200_levelled": c / c_levelled,
        "cnn20_over_mosaic_worst": max(s.seeded.error.c / s.mosaic.error.c for s in matched),
        "equivalent_flat_epochs": equal(levels=False),
        "equivalent_flat_epochs_levelled": equal(levels=True),
    }


def _costs(matched: Sequence[Specimen]) -> dict[str, float]:
    """Return how many times cheaper network and network + 20 epochs are than 200 flat epochs."""
    slow = [s.arena.flat("epie", MANY_EPOCHS).cpu_s for s in matched]
    network, both = (s.mosaic.cpu_s for s in matched), (s.mosaic.cpu_s + s.seeded.cpu_s for s in matched)
    return {
        "speedup_cnn_vs_200": statistics.median(a / b for a, b in zip(slow, network, strict=True)),
        "speedup_cnn20_vs_200": statistics.median(a / b for a, b in zip(slow, both, strict=True)),
    }


def _gate(unseen: Sequence[Specimen], matched: Sequence[Specimen]) -> dict[str, float]:
    """Return the error from a gated seed over that from a flat start, same engine, as many epochs.

    The flat start gets the algorithm that makes more of it.
    """

    def flat(specimen: Specimen) -> float:
        arms = (specimen.arena.flat(name, SEEDED_EPOCHS, levels=True) for name in ("epie", "rpie"))
        return min(arm.error.c for arm in arms)

    def harm(specimens: Sequence[Specimen]) -> list[float]:
        return [s.seeded.error.c / flat(s) for s in specimens]

    return {
        "c_mosaic_unseen": statistics.mean(s.mosaic.error.c for s in unseen),
        "gate_harm": statistics.mean(harm(unseen)),
        "gate_harm_worst": max(harm(unseen)),
        "seed_gain_matched": 1 - statistics.mean(harm(matched)),
    }


def _by_object(specimens: Sequence[Specimen]) -> list[dict[str, float]]:
    return [
        {
            "c_mosaic": s.mosaic.error.c,
            "c_cnn20": s.seeded.error.c,
            "c_rpie20": s.arena.flat("rpie", SEEDED_EPOCHS).error.c,
            "c_rpie20_levelled": s.arena.flat("rpie", SEEDED_EPOCHS, levels=True).error.c,
            "c_epie200": s.arena.flat("epie", MANY_EPOCHS).error.c,
            "c_epie200_levelled": s.arena.flat("epie", MANY_EPOCHS, levels=True).error.c,
        }
        for s in specimens
    ]


BENCHMARK = Benchmark(measure=measure, targets=TARGETS, published=PAPER)
