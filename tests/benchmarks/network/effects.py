"""What a beamline that is not an ideal one costs: bad pixels, gaps, beam stop, background, partial coherence.

The same objects are seen through each effect; the weights know none of them from training. Gaps are filled
as in a run (`operators.network.gaps`). Of background the network is told nothing, as no run could; of
partial coherence it is told nothing, or the modes of the probe, as by a run whose probe was refined with
them.
"""

from launch.training.evaluate import evaluation_probe, scan_figures, simulate_scans, trained_families
from launch.training.recipe import EffectsRecipe, Recipe
from operators.arrays import abs2
from operators.network.interface import Network
from operators.network.predictor import Predictor

SEED = 2**32 + 5
N_POSITIONS = 10
EFFECTS = {
    "ideal": EffectsRecipe(),
    "bad_pixels": EffectsRecipe(dead_share=(0.01, 0.01), hot_share=(0.001, 0.001)),
    "gap": EffectsRecipe(gap_px=(3, 3)),
    "beam_stop": EffectsRecipe(beam_stop_px=(4.0, 4.0)),
    "background": EffectsRecipe(background=(1.0, 1.0)),
}
BLUR_PX = 1.2  # of a probe whose disc is 28 pixels wide


def effects_figures(network: Network, recipe: Recipe) -> dict[str, float]:
    """Return the errors and the coverage of patches and mosaics through each effect, by name."""
    recipe = recipe.evaluated_with(n_positions=N_POSITIONS, objects_per_family=1)
    through = {name: recipe.model_copy(update={"effects": effects}) for name, effects in EFFECTS.items()}
    blurred = recipe.probe.model_copy(update={"blur_px": (BLUR_PX, BLUR_PX), "n_modes": 4})
    through["blur"] = through["blur_told"] = recipe.model_copy(update={"probe": blurred})
    figures = {}
    for name, changed in through.items():
        probe = evaluation_probe(changed if name == "blur_told" else recipe)
        predictor, weights = Predictor(network, probe), abs2(probe).sum(axis=0)
        scans = simulate_scans(changed, trained_families(recipe), SEED)
        pooled = scan_figures(predictor, weights, scans)
        for kind in ("patch_c", "mosaic_c", "coverage95"):
            figures[f"{name}_{kind}"] = pooled[kind]
    return figures
