"""The recipe of a training: a YAML file, checked as a whole before anything starts."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from launch.config.reading import read_settings
from launch.training.recipe_optics import (
    EffectsRecipe,
    MaterialRecipe,
    ProbeRecipe,
    Share,
)
from operators.optics.samples import TRAINING_FAMILIES
from operators.section import Fraction, Section

DEMO_RECIPE = Path(__file__).parents[1] / "recipes" / "train-demo.yaml"


class ScanRecipe(Section):
    """How a recorded scan is refined and used, with `train --from-scan`; the last three are filled in."""

    share: Fraction = 0.5
    """of the samples that come from the scan instead of the recipe"""
    measured: Annotated[float, Field(ge=0, le=1)] = 0.5
    """share of those with the measured pattern; the others have simulated ones of pieces of the object"""
    held_out: Share = 0.2
    """share of the frames, at the end of the scan, that the result is judged by"""
    epochs: PositiveFloat | None = None
    """of its refinement; as in the run that recorded it when left out"""
    n_modes: PositiveInt | None = None
    """of the probe; as in the run that recorded it when left out"""
    refines_positions: bool = False
    """whether the refinement of the scan refines positions as well"""
    name: str = ""
    """of the scan"""
    labels: str = ""
    """file beside the weights with object, probe and patterns"""
    sha256: str = ""
    """of that file"""


class EvaluationRecipe(Section):
    """Scans of held-out objects that a trained network is judged by."""

    photons_per_frame: PositiveFloat
    """of the judged scans, without a sample"""
    step_px: PositiveFloat
    """distance of neighbouring positions"""
    n_positions: PositiveInt
    """along each side of a scan"""
    objects_per_family: PositiveInt = 1
    """scans per family of textures"""
    draws_probes: bool = False
    """whether as many scans more are taken, each with a probe drawn as in training: `drawn_probe_*`"""


class Recipe(Section):
    """Everything that determines a training."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """of the weights, their card and the log"""
    seed: Annotated[int, Field(ge=0)]
    """of everything random; on one CPU the same seed gives the same weights"""
    network: str = "physics"
    """kind of network: physics, ptychonet or ptychonn"""
    network_config: dict[str, Any]
    """keyword arguments of the network"""
    initial_weights: Path | None = None
    """weights to begin with instead of random ones: `demo` for the package's own, or a file, relative to the
    folder of the new ones; of a network of more stages the first ones are taken"""
    probe: ProbeRecipe
    """the probes of the training"""
    material: MaterialRecipe
    """how thick and how dense the samples are"""
    effects: EffectsRecipe | None = None
    """an ideal detector and a steady beam when left out"""
    photons_per_frame: tuple[PositiveFloat, PositiveFloat]
    """least and most of a log-uniform draw"""
    families: tuple[str, ...] = ("smooth", "power_law", "polygons", "siemens", "voronoi")
    """of textures, in equal shares; `natural` cuts them from photographs (extra `train`)"""
    n_textures: PositiveInt = 1000
    """textures drawn before the training; samples are windows of them"""
    texture_px: PositiveInt = 256
    """side of a texture"""
    blended: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of objects made of two textures: their maximum, product or mean"""
    toned: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of textures whose values go up and down in a random wave: contours, thin lines and dots"""
    warped: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of textures bent at random: lines curve, circles become uneven"""
    scan: ScanRecipe | None = None
    """a recorded scan among the samples"""
    n_steps: PositiveInt
    """updates of the weights"""
    batch_size: PositiveInt = 16
    """samples of one update"""
    loss: Literal["complex", "amplitude_phase"] = "complex"
    """error of the complex patches, or of their amplitudes and unwrapped phases"""
    optimiser: Literal["adamw", "adam"] = "adamw"
    """AdamW, or Adam as PtychoNet's paper has it"""
    learning_rate: PositiveFloat = 1.5e-3
    """highest, after the rise"""
    schedule: Literal["cosine", "steps", "trapezoid"] = "cosine"
    """how the learning rate falls: half a cosine to zero; by `decay_factor` every `decay_steps`; linearly to
    zero over the last `decay_steps`"""
    decay_steps: PositiveInt = 1000
    """over which, or after which, the learning rate falls"""
    decay_factor: Fraction = 0.5
    """of the schedule `steps`"""
    warm_up_steps: PositiveInt = 500
    """over which the learning rate rises"""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """of AdamW"""
    gradient_clip: PositiveFloat | None = 1.0
    """largest norm of a step's gradient; null for any"""
    draft_weight: Annotated[float, Field(ge=0)] = 0.5
    """of the loss of each stage before the last"""
    sigma_weight: PositiveFloat = 0.1
    """of the uncertainty's loss; its gradients do not reach the estimate"""
    bfloat16: bool = False
    """convolutions of the training in bfloat16"""
    report_every: PositiveInt = 250
    """steps between checkpoints"""
    evaluation: EvaluationRecipe
    """what the trained network is judged by"""

    @property
    def n_pixels(self) -> int:
        """Side of the patterns."""
        return self.network_config["n_pixels"]

    def evaluated_with(self, **changes: Any) -> "Recipe":
        """Return the same recipe with other settings of its evaluation."""
        return self.model_copy(update={"evaluation": self.evaluation.model_copy(update=changes)})

    def describe_data(self) -> str:
        """Return one sentence on the training data."""
        low, high = self.photons_per_frame
        scan = f"; {self.scan.share:.0%} from scan {self.scan.name}" if self.scan else ""
        optics = " and ".join(self.probe.optics).replace("_", "-")
        detectors = f" on {self.effects.n_detectors} imperfect detectors" if self.effects else ""
        return (
            f"{self.n_steps * self.batch_size} simulated patterns of {low:g} to {high:g} photons: "
            f"{self.n_textures} textures ({', '.join(self.families)}; {self.blended:.0%} blended, "
            f"{self.toned:.0%} toned, {self.warped:.0%} warped), "
            f"transmission {self.material.describe()}, "
            f"{self.probe.n_probes} {optics} probes{detectors}{scan}"
        )

    @field_validator("families")
    @classmethod
    def _are_not_held_out(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        if not families or not set(families) <= set(TRAINING_FAMILIES):
            raise ValueError(f"families must be some of {', '.join(TRAINING_FAMILIES)}")
        return families

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if "file" in self.probe.optics and self.probe.path is None and self.scan is None:
            raise ValueError("optics `file` need a `path`, or a section `scan` to take the probe of a scan")
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
    ConfigError
        Names the file and each wrong key, what was wanted and what came.
    """
    return read_settings(path, Recipe)
