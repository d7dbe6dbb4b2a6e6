"""The parts of a recipe that say what is drawn: probes, materials and detectors, fixed or from ranges.

A range is one number, or [least, most] of a uniform draw; the middle is the nominal value.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from operators.arrays import Probe, fft2, ifft2
from operators.optics.coherence import blurred_probe, mixed_probe
from operators.optics.detector_effects import DetectorEffects
from operators.optics.phase_screen import phase_screen
from operators.optics.probe import curvature_of_disc, kb_mirror_probe, with_power, zone_plate_probe
from operators.section import Section
from stream.files.paths import OutputPath
from stream.files.probe import read_probe

Share = Annotated[float, Field(ge=0, lt=1)]
Optics = Literal["zone_plate", "kb_mirrors", "file"]


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"a range is [least, most], got {list(bounds)}")
    return bounds


Range = Annotated[tuple[float, float], BeforeValidator(_pair), AfterValidator(_ordered)]
PositiveRange = Annotated[
    tuple[PositiveFloat, PositiveFloat], BeforeValidator(_pair), AfterValidator(_ordered)
]
NotNegativeRange = Annotated[
    tuple[NonNegativeFloat, NonNegativeFloat], BeforeValidator(_pair), AfterValidator(_ordered)
]
ShareRange = Annotated[tuple[Share, Share], BeforeValidator(_pair), AfterValidator(_ordered)]


class ProbeRecipe(Section):
    """Probes out of focus, and how far training probes stray from the nominal one."""

    optics: Annotated[
        tuple[Optics, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        Field(min_length=1),
    ] = ("zone_plate",)
    """what makes the probe, in equal shares; the first makes the nominal one"""
    path: OutputPath | None = None
    """.npy or .cxi file with a measured probe, for optics `file`; that of the recorded scan when left out"""
    pupil_radius_px: PositiveFloat
    """radius of the pupil on the detector, or half the side of the square one of mirrors; a measured probe
    has its own, and this only scales its defocus"""
    pupil_spread: Share = 0.0
    """the radius varies by this share to either side"""
    disc_radius_px: PositiveFloat
    """radius of the defocused disc on the sample, or half the side of the mirrors' square"""
    disc_spread: Share = 0.0
    """the disc's radius varies by this share to either side: the range of defocus"""
    central_stop: ShareRange = (0.0, 0.0)
    """radius of a zone plate's central stop over the radius of the pupil"""
    aspect: PositiveRange = (1.0, 1.0)
    """height over width of the mirrors' pupil"""
    roughness_rad: NonNegativeFloat = 0.0
    """r.m.s. of a smooth random phase on the pupil, at most"""
    diffuser_rad: NotNegativeRange = (0.0, 0.0)
    """r.m.s. phase of a diffuser in front of the sample"""
    diffuser_grain_px: PositiveFloat = 2.0
    """size of its grains on the sample"""
    blur_px: NotNegativeRange = (0.0, 0.0)
    """standard deviation of the probe's place during an exposure: source size and vibration"""
    coherence_px: PositiveRange | None = None
    """transverse coherence length at the sample; full coherence when left out"""
    travel_px: NotNegativeRange = (0.0, 0.0)
    """flown during an exposure: along a row, and by half of the random probes along a column"""
    n_modes: PositiveInt = 1
    """kept of each probe, the strongest; blur, coherence and travel need two or more"""
    n_probes: PositiveInt = 64
    """different probes drawn for a training"""

    def nominal(self, n_pixels: int) -> NDArray[np.complex64]:
        """Return the strongest mode of the nominal probe, (y, x) complex64 of unit power."""
        return with_power(self.nominal_modes(n_pixels)[0], 1.0)

    def nominal_modes(self, n_pixels: int) -> Probe:
        """Return the probe without deviations, (mode, y, x) complex64 of unit power; it has no diffuser."""
        if self.optics[0] == "zone_plate":
            stop = nominal(self.central_stop)
            probe = zone_plate_probe(n_pixels, self.pupil_radius_px, self.disc_radius_px, stop)[None]
        elif self.optics[0] == "kb_mirrors":
            pupil = _half_widths(self.pupil_radius_px, nominal(self.aspect))
            probe = kb_mirror_probe(n_pixels, pupil, (self.disc_radius_px,) * 2)[None]
        else:
            probe = self._measured(n_pixels)
        coherence_px = nominal(self.coherence_px) if self.coherence_px else None
        return self._mixed(probe, coherence_px, (0.0, nominal(self.travel_px)), nominal(self.blur_px))

    def random(self, n_pixels: int, rng: np.random.Generator) -> Probe:
        """Return a probe with random deviations, (mode, y, x) complex64 of unit power."""
        optics = self.optics[int(rng.integers(len(self.optics)))] if len(self.optics) > 1 else self.optics[0]
        pupil, disc = (draw(bounds, rng) for bounds in self.ranges().values())
        if optics == "zone_plate":
            probe = zone_plate_probe(n_pixels, pupil, disc, draw(self.central_stop, rng))[None]
        elif optics == "kb_mirrors":
            discs = disc, draw(self.ranges()["disc_radius_px"], rng)
            half_widths = _half_widths(pupil, draw(self.aspect, rng))
            probe = kb_mirror_probe(n_pixels, half_widths, discs)[None]
        else:
            probe = _refocused(self._measured(n_pixels), disc - self.disc_radius_px, self.pupil_radius_px)
        shape = (n_pixels, n_pixels)
        roughness_rad = rng.uniform(0, self.roughness_rad)
        probe = ifft2(fft2(probe) * phase_screen(shape, roughness_rad, n_pixels / 16, rng))
        diffuser_rad = draw(self.diffuser_rad, rng)
        if diffuser_rad:
            probe = probe * phase_screen(shape, diffuser_rad, self.diffuser_grain_px, rng)
        blur_px, travel_px = draw(self.blur_px, rng), draw(self.travel_px, rng)
        coherence_px = draw(self.coherence_px, rng) if self.coherence_px else None
        along_column = travel_px > 0 and rng.random() < 0.5
        travel = (travel_px, 0.0) if along_column else (0.0, travel_px)
        return self._mixed(probe, coherence_px, travel, blur_px)

    def of_scan(self, path: Path) -> "ProbeRecipe":
        """Return the same with the probe of a scan where optics `file` have no path."""
        wants_one = "file" in self.optics and self.path is None
        return self.model_copy(update={"path": path}) if wants_one else self

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return least and most of each radius, px."""
        return {
            "pupil_radius_px": _around(self.pupil_radius_px, self.pupil_spread),
            "disc_radius_px": _around(self.disc_radius_px, self.disc_spread),
        }

    def _measured(self, n_pixels: int) -> Probe:
        if self.path is None:
            raise ValueError("optics `file` need a `path`, or a scan that has the probe: --from-scan SCAN")
        probe = read_probe(self.path)
        if probe.shape[1:] != (n_pixels, n_pixels):
            raise ValueError(
                f"{self.path}: the probe has {probe.shape[1]} x {probe.shape[2]} pixels, the patterns of the "
                f"recipe {n_pixels} x {n_pixels}; crop or pad the probe, or change network_config.n_pixels"
            )
        return with_power(probe, 1.0)

    def _mixed(
        self, probe: Probe, coherence_px: float | None, travel_px: tuple[float, float], blur_px: float
    ) -> Probe:
        """Return `n_modes` modes; those of a probe that nothing blurs are empty after the first."""
        mixed = mixed_probe(
            probe, self.n_modes, coherence_px=coherence_px, travel_px=travel_px, blur_px=blur_px
        )
        return mixed if len(mixed) == self.n_modes else blurred_probe(mixed, 0.0, self.n_modes)

    @model_validator(mode="after")
    def _is_complete(self) -> "ProbeRecipe":
        if self.path is not None and "file" not in self.optics:
            raise ValueError("`path` is that of optics `file`: give both or neither")
        mixing = {"blur_px": self.blur_px[1], "travel_px": self.travel_px[1]}
        mixing |= {"coherence_px": self.coherence_px[0]} if self.coherence_px else {}
        named = ", ".join(f"{name} = {value:g}" for name, value in mixing.items() if value)
        if self.n_modes == 1 and named:
            raise ValueError(
                f"{named} make several modes of a probe, and n_modes = 1 keeps only the strongest, as if the "
                "probe were coherent: give n_modes of 2 or more (4 hold most of a small blur)"
            )
        return self


class MaterialRecipe(Section):
    """Transmission exp(-(absorption + i phase_shift_rad) t) of texture t in [0, 1]."""

    absorption: NotNegativeRange
    """of the amplitude at the thickest part, as an exponent: 0.1 leaves 90 % of it"""
    phase_shift_rad: Range
    """of the phase at the thickest part"""
    mixed: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of objects whose phase is a texture of its own, so that amplitude and phase tell nothing about
    each other"""

    @property
    def complex(self) -> complex:
        """The nominal material as one number, as `operators.optics.samples` takes it."""
        return complex(nominal(self.absorption), nominal(self.phase_shift_rad))

    def random(self, rng: np.random.Generator) -> np.complex128:
        """Return a material within the ranges, as one number."""
        return np.complex128(complex(draw(self.absorption, rng), draw(self.phase_shift_rad, rng)))

    def describe(self) -> str:
        """Return the transmission as a formula."""
        absorption, phase = (_as_text(bounds) for bounds in (self.absorption, self.phase_shift_rad))
        mixed = f", {self.mixed:.0%} with independent phase" if self.mixed else ""
        return f"exp(-({absorption} + {phase}i) t){mixed}"


class EffectsRecipe(Section):
    """What real detectors and beams do to the patterns; defects are drawn anew for each detector.

    Bad pixels are zero in what the network gets, as in prepared frames; background is not subtracted.
    """

    gain_spread: NotNegativeRange = (0.0, 0.0)
    """standard deviation of the pixels' sensitivity"""
    dead_share: ShareRange = (0.0, 0.0)
    """share of pixels that never count"""
    hot_share: ShareRange = (0.0, 0.0)
    """share of pixels that count without light"""
    beam_stop_px: NotNegativeRange = (0.0, 0.0)
    """radius of a disc before the direct beam"""
    gap_px: NotNegativeRange = (0.0, 0.0)
    """width of the gaps between modules, rounded"""
    background: NotNegativeRange = (0.0, 0.0)
    """mean photons per pixel and frame"""
    saturation: PositiveRange | None = None
    """most counts that a pixel reads"""
    flux_spread: NonNegativeFloat = 0.0
    """standard deviation of the photons of a frame over those that the network is told"""
    n_detectors: PositiveInt = 64
    """different detectors drawn for a training"""

    def random(self, rng: np.random.Generator) -> DetectorEffects:
        """Return how good one detector is."""
        return DetectorEffects(
            gain_spread=draw(self.gain_spread, rng),
            dead_share=draw(self.dead_share, rng),
            hot_share=draw(self.hot_share, rng),
            beam_stop_px=draw(self.beam_stop_px, rng),
            gap_px=round(draw(self.gap_px, rng)),
            background=draw(self.background, rng),
            saturation=draw(self.saturation, rng) if self.saturation else None,
        )

    def flux(self, deviations: Any) -> Any:
        """Return the photons of frames over those that the network is told, from standard normal numbers."""
        return (1 + self.flux_spread * deviations).clip(0)


def draw(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """Return a number within a range; nothing is drawn where there is nothing to choose."""
    return bounds[0] if bounds[0] == bounds[1] else float(rng.uniform(*bounds))


def nominal(bounds: tuple[float, float]) -> float:
    """Return the nominal value of a range."""
    return sum(bounds) / 2


def _around(value: float, spread: float) -> tuple[float, float]:
    return value * (1 - spread), value * (1 + spread)


def _half_widths(radius_px: float, aspect: float) -> tuple[float, float]:
    return radius_px * aspect**0.5, radius_px / aspect**0.5


def _refocused(probe: Probe, disc_px: float, pupil_radius_px: float) -> Probe:
    """Return the probe further out of focus, by what spreads its pupil over a disc."""
    n_pixels = probe.shape[-1]
    k = np.fft.fftfreq(n_pixels) * n_pixels
    curvature = curvature_of_disc(disc_px, pupil_radius_px, n_pixels)
    return ifft2(fft2(probe) * np.exp(1j * curvature * (k[:, None] ** 2 + k**2))).astype(np.complex64)


def _as_text(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g}" if bounds[0] == bounds[1] else f"[{bounds[0]:g}..{bounds[1]:g}]"
