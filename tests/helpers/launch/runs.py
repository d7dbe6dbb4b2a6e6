"""Configurations and runs, not started: of the real stages, or of `quiet_stages`."""

from pathlib import Path
from typing import Any

from launch.config.config import Config
from launch.config.run_file import ResolvedRun, StageSpec, new_run

TRAINED_PROBE = {"source": "zone_plate", "pupil_radius_px": 12, "disc_radius_px": 14, "photons": 4e5}
"""Known beforehand, and what the demo's network was trained for."""


def make_config(save: Path, **sections: Any) -> Config:
    """The least that a configuration has to say, and these sections."""
    settings = {
        "geometry": {
            "energy_ev": 8800,
            "detector_distance_m": 1.92,
            "detector_pixel_m": 75e-6,
            "n_pixels": 64,
        },
        "detector": {"address": "ipc://detector"},
        "positions": {"unit": "um"},
        "results": {"resolution": "never", "orientation": False},
        "save": save,
    }
    return Config.model_validate(settings | sections)


def make_run(save: Path, *names: str, **options: Any) -> ResolvedRun:
    """A run of stages that have nothing to do; `options` are of each."""
    specs = [
        StageSpec(name=name, builder=f"tests.helpers.launch.quiet_stages:{name}", **options) for name in names
    ]
    return new_run(make_config(save), tuple(specs))
