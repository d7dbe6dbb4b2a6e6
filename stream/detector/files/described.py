"""What an HDF5 file says of the instrument: NeXus as detectors write it, CXI, and DECTRIS' master files."""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from operators.geometry import METRES_PER_UNIT, PLANCK_TIMES_LIGHT_EV_M
from stream.detector.files.series import Description
from stream.files.cxi import JOULES_PER_EV

_UNITS = {
    **METRES_PER_UNIT,
    "cm": 1e-2,
    "angstrom": 1e-10,
    "A": 1e-10,
    "eV": 1.0,
    "keV": 1e3,
    "J": 1 / JOULES_PER_EV,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
}
_DETECTORS = ("entry/instrument/detector", "entry_1/instrument_1/detector_1", "entry/instrument/detector_1")
_BEAMS = ("entry/instrument/beam", "entry/sample/beam", "entry/beam", "entry_1/instrument_1/source_1")
_SPECIFIC = "entry/instrument/detector/detectorSpecific"


def describe(file: h5py.File) -> Description:
    """Returns what a file says; nothing where it says nothing, or something that cannot be."""
    energy = _first(file, _within(_BEAMS, ("incident_energy", "energy"), {"energy": "J"}))
    energy = energy or _first(file, [(f"{_SPECIFIC}/photon_energy", "eV")])
    wavelength = _first(
        file, _within(_BEAMS, ("incident_wavelength", "wavelength"), {"wavelength": "m"}, "angstrom")
    )
    if energy is None and wavelength is not None:
        energy = PLANCK_TIMES_LIGHT_EV_M / wavelength
    n_images, n_triggers = (_first(file, [(f"{_SPECIFIC}/{name}", "")]) for name in ("nimages", "ntrigger"))
    return Description(
        n_frames=int(n_images * (n_triggers or 1)) if n_images else None,
        energy_ev=energy,
        detector_distance_m=_first(file, _within(_DETECTORS, ("detector_distance", "distance"), {}, "m")),
        pixel_x_m=_first(file, _within(_DETECTORS, ("x_pixel_size",), {}, "m")),
        pixel_y_m=_first(file, _within(_DETECTORS, ("y_pixel_size",), {}, "m")),
        beam_x=_first(file, _within(_DETECTORS, ("beam_center_x",), {}, "")),
        beam_y=_first(file, _within(_DETECTORS, ("beam_center_y",), {}, "")),
        frame_time_s=_first(file, _within(_DETECTORS, ("frame_time",), {}, "s")),
    )


def _within(
    groups: tuple[str, ...], names: tuple[str, ...], units: dict[str, str], unit: str = "eV"
) -> Iterator[tuple[str, str]]:
    """Yield places and the unit of what has none of its own there."""
    for group in groups:
        for name in names:
            yield f"{group}/{name}", units.get(name, unit)


def _first(file: h5py.File, places: Any) -> float | None:
    """Return the first positive number at one of these places, in metres, eV or seconds."""
    for place, unit in places:
        item = file.get(place)
        if not isinstance(item, h5py.Dataset) or item.size != 1 or item.dtype.kind not in "iuf":
            continue
        said = item.attrs.get("units", unit)
        said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        value = float(np.asarray(item[()]).reshape(-1)[0]) * _UNITS.get(said, 1.0)
        if np.isfinite(value) and value > 0:
            return value
    return None
