"""The recipe of a training: a YAML file, checked as a whole before anything starts.

Separate from `launch.train` so that the demo can read its probe and material without loading torch.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy import ndimage

from operators.arrays import Probe, fft2, ifft2
from operators.objects import FAMILIES
from operators.probe import zone_plate_probe

DEMO_RECIPE = Path(__file__).parent / "recipes" / "train-demo.yaml"

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbeRecipe(_Section):
    """A zone plate out of focus, and how far training probes stray from it."""

    pupil_radius_px: Positive
    """radius of the pupil on the detector"""
    pupil_spread: Share = 0.0
    """the radius varies by this share to either side"""
    disc_radius_px: Positive
    """radius of the defocused disc on the sample"""
    disc_spread: Share = 0.0
    """the disc's radius varies by this share to either side"""
    roughness_rad: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """r.m.s. of a smooth random phase on the pupil, at most"""
    n_probes: Count = 64
    """different probes drawn for a training"""

    def nominal(self, n_pixels: int) -> NDArray[np.complex64]:
        """Return the probe without deviations, (y, x) complex64 of unit power."""
        return zone_plate_probe(n_pixels, self.pupil_radius_px, self.disc_radius_px)

    def random(self, n_pixels: int, rng: np.random.Generator) -> NDArray[np.complex64]:
        """Return a probe with random deviations, (y, x) complex64 of unit power."""
        radii = [rng.uniform(*bounds) for bounds in self.ranges().values()]
        probe = zone_plate_probe(n_pixels, *radii)
        smooth = ndimage.gaussian_filter(rng.standard_normal(probe.shape), n_pixels / 16, mode="wrap")
        phase = rng.uniform(0, self.roughness_rad) * smooth / smooth.std()
        return ifft2(fft2(probe) * np.exp(1j * phase).astype(np.complex64))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return least and most of each radius, px."""
        return {
            "pupil_radius_px": _around(self.pupil_radius_px, self.pupil_spread),
            "disc_radius_px": _around(self.disc_radius_px, self.disc_spread),
        }


class MaterialRecipe(_Section):
    """Transmission exp(-(absorption + i phase_shift_rad) t) of texture t in [0, 1]."""

    absorption: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    phase_shift_rad: Annotated[float, Field(allow_inf_nan=False)]

    @property
    def complex(self) -> complex:
        """Both as one number, as `operators.objects` takes them."""
        return complex(self.absorption, self.phase_shift_rad)


class EvaluationRecipe(_Section):
    """Scans of held-out objects that a trained network is judged by."""

    photons_per_frame: Positive
    step_px: Positive
    """distance of neighbouring positions"""
    n_positions: Count
    """along each side of a scan"""
    objects_per_family: Count = 1


class Recipe(_Section):
    """Everything that determines a training."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    seed: Annotated[int, Field(ge=0)]
    network: str = "physics"
    network_config: dict[str, Any]
    """keyword arguments of the network"""
    initial_weights: Path | None = None
    """weights to begin with instead of random ones; relative to the folder of the new ones"""
    probe: ProbeRecipe
    material: MaterialRecipe
    photons_per_frame: tuple[Positive, Positive]
    """least and most of a log-uniform draw"""
    n_textures: Count = 1000
    texture_px: Count = 256
    blended: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of objects made of two textures: their maximum, product or mean"""
    n_steps: Count
    batch_size: Count = 16
    loss: Literal["complex", "amplitude_phase"] = "complex"
    """error of the complex patches, or of their amplitudes and unwrapped phases"""
    optimiser: Literal["adamw", "adam"] = "adamw"
    learning_rate: Positive = 1.5e-3
    schedule: Literal["cosine", "steps", "trapezoid"] = "cosine"
    """how the learning rate falls: half a cosine to zero; by `decay_factor` every `decay_steps`; linearly to
    zero over the last `decay_steps`"""
    decay_steps: Count = 1000
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    warm_up_steps: Count = 500
    """over which the learning rate rises"""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_clip: Positive = 1.0
    draft_weight: Annotated[float, Field(ge=0)] = 0.5
    """of the loss of each stage before the last"""
    sigma_weight: Positive = 0.1
    """of the uncertainty's loss; its gradients do not reach the estimate"""
    bfloat16: bool = False
    """convolutions of the training in bfloat16"""
    report_every: Count = 250
    """steps between checkpoints"""
    evaluation: EvaluationRecipe

    @property
    def n_pixels(self) -> int:
        """Side of the patterns."""
        return self.network_config["n_pixels"]

    def describe_data(self) -> str:
        """Return one sentence on the training data."""
        low, high = self.photons_per_frame
        material = f"exp(-({self.material.absorption:g} + {self.material.phase_shift_rad:g}i) t)"
        return (
            f"{self.n_steps * self.batch_size} simulated patterns of {low:g} to {high:g} photons: "
            f"{self.n_textures} textures ({', '.join(FAMILIES)}; {self.blended:.0%} blended), "
            f"transmission {material}, "
            f"{self.probe.n_probes} zone-plate probes"
        )

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if "n_pixels" not in self.network_config:
            raise ValueError("network_config.n_pixels is missing: the side of the patterns")
        if self.photons_per_frame[0] > self.photons_per_frame[1]:
            raise ValueError(f"photons_per_frame must be [least, most], got {list(self.photons_per_frame)}")
        if self.texture_px < self.n_pixels:
            raise ValueError(f"texture_px = {self.texture_px} is smaller than the patterns, {self.n_pixels}")
        return self


def read_recipe(path: Path = DEMO_RECIPE) -> Recipe:
    """Return the recipe in a YAML file.

    Raises
    ------
    ValueError
        Names the file and each wrong key, what was wanted and what was found.
    """
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        lines = [_complaint(wrong["loc"], wrong["msg"], wrong["input"]) for wrong in error.errors()]
        raise ValueError("\n".join([f"{path}:", *lines])) from error


def demo_probe(photons_per_frame: float = 1.0) -> Probe:
    """Return the demo's probe, (1, y, x) complex64, which the shipped weights were trained for."""
    recipe = read_recipe()
    return np.sqrt(np.float32(photons_per_frame)) * recipe.probe.nominal(recipe.n_pixels)[None]


def _around(value: float, spread: float) -> tuple[float, float]:
    return value * (1 - spread), value * (1 + spread)


def _complaint(location: tuple[int | str, ...], message: str, found: Any) -> str:
    key = ".".join(str(part) for part in location) or "recipe"
    return f"  {key}: {message}" + ("" if isinstance(found, dict) else f", got {found!r}")
