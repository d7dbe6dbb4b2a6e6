"""Whether what is told of a measurement can be true: each quantity with its unit, judged for X-rays.

A wrong unit (keV for eV, micrometres for metres) makes a picture that is wrong by powers of ten and looks
right. What lies outside of what exists is impossible, what lies outside of what is usual is doubtful, and
either comes with a sentence: what came, what was expected, and the mistake that would explain it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.spatial import cKDTree

from operators.arrays import Positions, Probe, abs2
from operators.geometry import Geometry
from operators.optics.probe import probe_diameter_px

Range = tuple[float, float]
Ranges = tuple[Range, Range]  # of what is possible, and of what is usual
Verdict = Literal["plausible", "doubtful", "impossible"]

# Laboratory sources of high harmonics begin at some 40 eV (Seaberg et al., Optica 1, 39 (2014)).
ENERGY_EV: Ranges = (30, 1e6), (50, 200e3)
DISTANCE_M: Ranges = (1e-3, 500), (1e-2, 50)
DETECTOR_PIXEL_M: Ranges = (1e-7, 1e-2), (1e-6, 1e-3)
OBJECT_PIXEL_M: Ranges = (1e-11, 1e-4), (0.5e-9, 1e-6)
# The best measured is 60 % (Bunk et al., Ultramicroscopy 108, 481 (2008)).
OVERLAP: Ranges = (1e-6, 1 - 1e-6), (0.4, 0.95)
# Two samples per speckle (Sayre, Acta Cryst. 5, 843 (1952)); overlap makes up for some that are missing
# (Edo et al., Phys. Rev. A 87, 053850 (2013)).
OVERSAMPLING: Ranges = (0, np.inf), (2.0, np.inf)
PHOTONS: Ranges = (1e-3, 1e15), (1e2, 1e11)

_INSTEAD_OF_EV = {"keV": 1e3, "joules": 1 / 1.602176634e-19}
_INSTEAD_OF_M = {"millimetres": 1e-3, "centimetres": 1e-2, "micrometres": 1e-6, "nanometres": 1e-9}
_OTHER_UNITS = {
    "a thousand times as far": 1e3,
    "a thousandth as far": 1e-3,
    "a million times as far": 1e6,
    "a millionth as far": 1e-6,
}
_PREFIXES = {
    -6: "a",
    -5: "f",
    -4: "p",
    -3: "n",
    -2: "µ",
    -1: "m",
    0: "",
    1: "k",
    2: "M",
    3: "G",
    4: "T",
    5: "P",
    6: "E",
}
_LARGE = {1e12: "trillion", 1e9: "billion", 1e6: "million", 1e3: "thousand"}
_ESTIMATED = ("probe diameter", "scan field")
_BYTES_PER_PIXEL = 8  # complex64


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is thought of one quantity.

    Attributes
    ----------
    quantity : str
        Such as "object pixel".
    value : float
    unit : str
        Of `value`: "eV", "m", "B", or "" for a ratio or a count.
    verdict : {"plausible", "doubtful", "impossible"}
    doubt : str
        A sentence unless it is plausible.
    """

    quantity: str
    value: float
    unit: str
    verdict: Verdict = "plausible"
    doubt: str = ""

    @property
    def text(self) -> str:
        """The value with its unit as people write it: "8.8 nm"."""
        if self.quantity == "overlap":
            return f"{self.value:.0%}"
        return readable(self.value, self.unit, digits=3 if self.quantity in _ESTIMATED else None)


def judge_geometry(geometry: Geometry, said: Mapping[str, str] | None = None) -> list[Judgement]:
    """Return what is thought of energy, distance, detector pixel, object pixel and window, in this order.

    Parameters
    ----------
    geometry : Geometry
    said : mapping of str to str, optional
        What the user writes before the value of a field: "--energy ". "energy_ev: " and so on without.
    """

    def judged(
        quantity: str, name: str, unit: str, ranges: Ranges, instead: Mapping[str, float]
    ) -> Judgement:
        before = f"{name}: " if said is None else said[name]
        return _judged(quantity, getattr(geometry, name), unit, ranges, before, instead)

    window_m = geometry.n_pixels * geometry.object_pixel_m
    return [
        judged("energy", "energy_ev", "eV", ENERGY_EV, _INSTEAD_OF_EV),
        judged("distance", "detector_distance_m", "m", DISTANCE_M, _INSTEAD_OF_M),
        judged("detector pixel", "detector_pixel_m", "m", DETECTOR_PIXEL_M, _INSTEAD_OF_M),
        _object_pixel(geometry),
        Judgement(quantity="window", value=window_m, unit="m"),
    ]


def judge_probe(probe: Probe, geometry: Geometry) -> list[Judgement]:
    """Return what is thought of a known probe: photons per frame, its diameter and oversampling.

    Parameters
    ----------
    probe : (mode, y, x) complex64
        Sum of |P|^2 is the mean number of photons per frame.
    geometry : Geometry
    """
    photons = float(abs2(probe).sum(dtype=np.float64))
    judged = Judgement(quantity="photons per frame", value=photons, unit="")
    if not np.isfinite(photons) or photons <= 0:
        what = "only zeros" if photons == 0 else "values that are not finite"
        doubt = f"the probe holds {what}: no frame can be explained by it"
        return [replace(judged, verdict="impossible", doubt=doubt)]
    diameter_px = probe_diameter_px(probe)
    return [
        _judged("photons per frame", photons, "", PHOTONS),
        Judgement(quantity="probe diameter", value=diameter_px * geometry.object_pixel_m, unit="m"),
        _oversampling(diameter_px, geometry.n_pixels),
    ]


def judge_positions(
    positions_m: Positions,
    geometry: Geometry,
    *,
    diameter_m: float | None = None,
    memory_bytes: float = np.inf,
) -> list[Judgement]:
    """Return what is thought of the positions of a scan: overlap, field and memory of the object.

    Parameters
    ----------
    positions_m : (frame, 2) float64, metres
        Probe on the sample, (y, x); NaN where none is known.
    geometry : Geometry
    diameter_m : float, optional
        Of the probe, metres. Without it only what no probe in the window could mend is doubted.
    memory_bytes : float
        That the object may take.

    Notes
    -----
    Overlap is linear: 1 - distance / diameter, with the median distance of the nearest other position.
    """
    known = positions_m[np.isfinite(positions_m).all(axis=1)]
    places = np.unique(known, axis=0)
    if len(places) < 2:
        which = f"all {len(known)} positions are the same" if len(places) else "no frame has a position"
        which = "one frame has a position" if len(known) == 1 else which
        doubt = f"{which}: ptychography needs neighbours that overlap"
        return [
            Judgement(
                quantity="overlap", value=float(len(known) > 1), unit="", verdict="impossible", doubt=doubt
            )
        ]
    field_m = np.ptp(known, axis=0)
    step_m = float(np.median(cKDTree(places).query(places, k=2)[0][:, 1]))
    return [
        _overlap(step_m, geometry, diameter_m),
        Judgement(quantity="scan field", value=float(field_m.max()), unit="m"),
        _memory(field_m, geometry, memory_bytes),
    ]


def readable(value: float, unit: str, *, digits: int | None = None) -> str:
    """Return a value with its unit and a prefix of the SI: four digits, three of bytes and without a unit."""
    if not unit or value == 0 or not np.isfinite(value):
        return f"{value:.3g} {unit}".rstrip()
    rounded = float(f"{value:.{digits or (3 if unit == 'B' else 4)}g}")
    power = int(np.clip(np.floor(np.log10(abs(rounded)) / 3 + 1e-9), min(_PREFIXES), max(_PREFIXES)))
    return f"{rounded / 1000.0**power:.4g} {_PREFIXES[power]}{unit}"


def roughly(n: float) -> str:
    """Return a count to two digits, in words where it is large: "about 3.9 million"."""
    rounded = float(f"{n:.2g}")
    for size, word in _LARGE.items():
        if rounded >= size:
            return f"about {rounded / size:.3g} {word}"
    return f"{n:.0f}" if n < 100 else f"about {rounded:.0f}"


def _object_pixel(geometry: Geometry) -> Judgement:
    pixel_m, wavelength_m = geometry.object_pixel_m, geometry.wavelength_m
    judged = _judged("object pixel", pixel_m, "m", OBJECT_PIXEL_M)
    comes_from = (
        f"it comes from {geometry.n_pixels} detector pixels of {readable(geometry.detector_pixel_m, 'm')} at "
        f"{readable(geometry.detector_distance_m, 'm')} and {readable(geometry.energy_ev, 'eV')}"
    )
    if pixel_m < wavelength_m and judged.verdict != "impossible":
        # the edge of the detector is seen at more than 27 degrees
        doubt = (
            f"the object pixel is {readable(pixel_m, 'm')}, finer than the wavelength, "
            f"{readable(wavelength_m, 'm')}: so far out the far field is no Fourier transform; {comes_from}"
        )
        return replace(
            judged, verdict="impossible" if pixel_m < wavelength_m / 4 else "doubtful", doubt=doubt
        )
    return replace(judged, doubt=judged.doubt and f"{judged.doubt}; {comes_from}")


def _oversampling(diameter_px: float, n_pixels: int) -> Judgement:
    judged = _judged("oversampling", n_pixels / diameter_px, "", OVERSAMPLING)
    if judged.verdict == "plausible":
        return judged
    doubt = (
        f"the probe is {diameter_px:.1f} pixels wide in a window of {n_pixels}, oversampling is "
        f"{judged.value:.2g}, expected 2 or more: use more of the detector's pixels or bin less, if energy, "
        "distance and detector pixel are right"
    )
    return replace(judged, doubt=doubt)


def _overlap(step_m: float, geometry: Geometry, diameter_m: float | None) -> Judgement:
    width_m = diameter_m or geometry.n_pixels * geometry.object_pixel_m
    judged = _judged("overlap", max(1 - step_m / width_m, 0.0), "", OVERLAP)
    # Of an unknown probe only the window is known, and a scan that suits the probe may look too dense in it.
    if judged.verdict == "plausible" or (diameter_m is None and judged.verdict == "doubtful"):
        return replace(judged, verdict="plausible", doubt="")
    what, (low, high) = "probe" if diameter_m else "window", OVERLAP[1]
    doubt = (
        f"neighbouring positions are {readable(step_m, 'm')} apart, the {what} is {readable(width_m, 'm')} "
        f"wide: an overlap of {low:.0%} to {high:.0%} is expected; check the unit of the positions and the "
        "geometry"
    )
    for other, factor in _OTHER_UNITS.items():
        if low <= 1 - factor * step_m / width_m <= high:
            doubt += f" ({other} it would fit)"
    return replace(judged, doubt=doubt)


def _memory(field_m: Positions, geometry: Geometry, memory_bytes: float) -> Judgement:
    sides_px = field_m / geometry.object_pixel_m + geometry.n_pixels
    judged = Judgement(quantity="object memory", value=float(sides_px.prod()) * _BYTES_PER_PIXEL, unit="B")
    if judged.value <= memory_bytes:
        return judged
    field = " x ".join(readable(float(side), "m") for side in field_m)
    doubt = (
        f"the positions reach over {field}, in object pixels of {readable(geometry.object_pixel_m, 'm')} an "
        f"object of {judged.text}, and {readable(memory_bytes, 'B')} are there: check the unit of the "
        "positions and the geometry"
    )
    return replace(judged, verdict="impossible", doubt=doubt)


def _judged(
    quantity: str,
    value: float,
    unit: str,
    ranges: Ranges,
    said: str = "",
    instead: Mapping[str, float] | None = None,
) -> Judgement:
    """Return what is thought of a value of which `ranges` are the possible and the usual.

    It was given after `said`, perhaps in one of the units `instead`, each with what it is in the right one.
    """
    (least, most), (low, high) = ranges
    judged = Judgement(quantity=quantity, value=value, unit=unit)
    if low <= value <= high:
        return judged
    doubt = f"{quantity} is {readable(value, unit)}, expected {readable(low, unit)} to {readable(high, unit)}"
    for mistake, factor in (instead or {}).items():
        if low <= (meant := value * factor) <= high:
            doubt += f"; did you mean {readable(meant, unit)} ({said}{meant:.6g})? It looks like {mistake}"
            break
    else:
        doubt += f" ({said.rstrip(' :')})" if said else ""
    verdict: Verdict = "doubtful" if least <= value <= most else "impossible"
    return replace(judged, verdict=verdict, doubt=doubt)
