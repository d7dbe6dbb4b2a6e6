"""The smallest recipe that trains: shared by the tests of training."""

from typing import Any

TINY_RECIPE: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "network_config": {"n_pixels": 32, "crop": 24, "widths": [16, 32], "unshuffle": 1, "n_stages": 2},
    "probe": {"pupil_radius_px": 6, "disc_radius_px": 7, "disc_spread": 0.1, "n_probes": 4},
    "material": {"absorption": 0.3, "phase_shift_rad": 1.2},
    "photons_per_frame": [1e5, 1e6],
    "n_textures": 5,
    "texture_px": 64,
    "n_steps": 6,
    "batch_size": 4,
    "report_every": 2,
    "evaluation": {"photons_per_frame": 1e5, "step_px": 4, "n_positions": 4},
}


def smallest_recipe(n_pixels: int, **network: Any) -> dict[str, Any]:
    """Return one for patterns of so few pixels that weights are tuned to a scan in a moment."""
    sizes = {"n_pixels": n_pixels, "crop": n_pixels, "widths": [8, 16], "unshuffle": 1}
    return {
        **{name: TINY_RECIPE[name] for name in ("name", "seed", "material", "photons_per_frame")},
        **{name: TINY_RECIPE[name] for name in ("n_textures", "n_steps", "evaluation")},
        "network_config": sizes | network,
        "probe": {"pupil_radius_px": 5, "disc_radius_px": 4, "n_probes": 2},
        "texture_px": 32,
    }
