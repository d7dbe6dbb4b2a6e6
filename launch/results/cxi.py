"""Results as files: CXI with everything another program needs, and a picture for people.

CXI follows version 1.6 with the names PyNX gives to results; ptychodus, cdtools and PyNX read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from operators.arrays import Array, Object, Positions, Probe
from operators.geometry import Bounds, Geometry
from operators.metrics.gauge import flattened
from stream.atomic import replacing
from stream.files.cxi import JOULES_PER_EV

WELL_LIT = 0.1  # of the peak illumination: what a picture shows
SCALE_BARS_M = [factor * 10.0**power for power in range(-9, -2) for factor in (1, 2, 5)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What a scan became.

    Attributes
    ----------
    object : (row, col) complex64
    bounds : Bounds
        Absolute object pixels that `object` covers.
    probe : (mode, y, x) complex64
    photons : (row, col) float32
        That fell on each object pixel.
    positions_m : (frame, 2) float64, metres
        Probe on the sample, (y, x), of the frames used; `geometry.to_pixels` of them are window corners in
        absolute object pixels.
    frame_numbers : (frame,) int64
    geometry : Geometry
    error_history : (epoch,) float64
        Amplitude error.
    maps : mapping of str to (row, col) array
        Further maps on the same pixels: sigma, mosaic ...
    """

    object: Object
    bounds: Bounds
    probe: Probe
    photons: Array
    positions_m: Positions
    frame_numbers: NDArray[np.int64]
    geometry: Geometry
    error_history: NDArray[np.float64]
    maps: Mapping[str, Array]


def write_cxi(path: Path, result: Reconstruction, provenance: Mapping[str, Any]) -> None:
    """Writes `result`; the file appears when it is complete.

    Parameters
    ----------
    path : Path
    result : Reconstruction
    provenance : mapping
        Plain values that say how it was made: run, model, configuration, epochs, frames ...
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["cxi_version"], file["number_of_entries"] = 160, 1
        file.attrs.update(default="entry_1", creator="ptychostream")
        entry = _group(file, "entry_1", "NXentry")
        entry["start_time"] = datetime.now(UTC).isoformat()
        entry["program_name"] = f"ptychostream {version('ptychostream')}"
        _write_instrument(entry, result)
        _write_positions(entry, result)
        _write_results(entry, result)
        _write_process(entry, result, provenance)


def read_result(path: Path) -> Reconstruction:
    """Returns what `write_cxi` wrote.

    Raises
    ------
    ValueError
        If the file is not a result of ptychostream.
    """
    try:
        with h5py.File(path, "r") as file:
            entry = file["entry_1"]
            detector, source = entry["instrument_1/detector_1"], entry["instrument_1/source_1"]
            object_result, probe = entry["result_1"], entry["result_2/data"][...]
            return Reconstruction(
                object=object_result["data"][...],
                bounds=Bounds(*(int(edge) for edge in object_result["bounds"])),
                probe=probe,
                photons=object_result["photons"][...],
                positions_m=-entry["sample_1/geometry_1/translation"][...][:, [1, 0]],
                frame_numbers=entry["sample_1/geometry_1/frame_number"][...],
                geometry=Geometry(
                    energy_ev=float(source["energy"][()]) / JOULES_PER_EV,
                    detector_distance_m=float(detector["distance"][()]),
                    detector_pixel_m=float(detector["x_pixel_size"][()]),
                    n_pixels=probe.shape[-1],
                ),
                error_history=entry["process_1/error_history"][...],
                maps={name: data[...] for name, data in object_result["maps"].items()},
            )
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: wanted a result written by ptychostream: {error}") from error


def write_png(path: Path, result: Reconstruction) -> None:
    """Writes amplitude and phase of the well-lit object side by side, with scale bar and colour bars."""
    figure = Figure(figsize=(11, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    show_object(figure, result)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def show_object(figure: FigureBase, result: Reconstruction) -> None:
    """Draws amplitude and phase of the well-lit object side by side.

    The phase is shown without its mean and linear ramp, which a reconstruction leaves free.
    """
    window = _lit_window(result.photons)
    lit = result.photons[window] > WELL_LIT * result.photons.max()
    shown, _ = flattened(result.object[window], lit)
    shown = shown * np.exp(-1j * np.angle(shown[lit].sum()))
    amplitude, phase = figure.subplots(1, 2)
    _show(figure, amplitude, np.abs(shown), lit, "gray", "amplitude")
    _show(figure, phase, np.angle(shown), lit, "viridis", "phase / rad")
    _scale_bar(amplitude, shown.shape[1], result.geometry.object_pixel_m)


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _write_instrument(entry: h5py.Group, result: Reconstruction) -> None:
    geometry, instrument = result.geometry, _group(entry, "instrument_1", "NXinstrument")
    source = _group(instrument, "source_1", "NXsource")
    source["energy"], source["wavelength"] = geometry.energy_ev * JOULES_PER_EV, geometry.wavelength_m
    source["energy"].attrs["units"], source["wavelength"].attrs["units"] = "J", "m"
    source["illumination"] = result.probe
    detector, pitch_m = _group(instrument, "detector_1", "NXdetector"), geometry.detector_pixel_m
    detector["distance"] = geometry.detector_distance_m
    detector["x_pixel_size"] = detector["y_pixel_size"] = pitch_m
    detector["basis_vectors"] = np.array([[0, -pitch_m, 0], [-pitch_m, 0, 0]]).T


def _write_positions(entry: h5py.Group, result: Reconstruction) -> None:
    geometry = _group(_group(entry, "sample_1", "NXsample"), "geometry_1", "NXgeometry")
    y, x = result.positions_m.T
    # CXI: motion of the sample, (x, y, z)
    geometry["translation"] = np.stack([-x, -y, np.zeros_like(x)], axis=1)
    geometry["frame_number"] = result.frame_numbers


def _write_results(entry: h5py.Group, result: Reconstruction) -> None:
    pixel_m = result.geometry.object_pixel_m
    for number, name in ((1, "object"), (2, "probe")):
        group = _group(entry, f"result_{number}", "NXdata")
        group.attrs["signal"] = "data"
        group["data"], group["title"], group["data_space"] = getattr(result, name), name, "real"
        group["x_pixel_size"] = group["y_pixel_size"] = pixel_m
        entry[name] = h5py.SoftLink(f"/entry_1/result_{number}")
    bounds, group = result.bounds, entry["result_1"]
    group["bounds"] = np.array([bounds.top, bounds.left, bounds.bottom, bounds.right])
    group["photons"] = result.photons
    maps = group.create_group("maps")
    for name, values in result.maps.items():
        maps[name] = values
    entry.attrs["default"] = "object"


def _write_process(entry: h5py.Group, result: Reconstruction, provenance: Mapping[str, Any]) -> None:
    process = _group(entry, "process_1", "NXprocess")
    process["program"], process["version"] = "ptychostream", version("ptychostream")
    process["error_history"] = np.asarray(result.error_history, np.float64)
    for name, value in provenance.items():
        if value is not None:
            process[name] = value


def _lit_window(photons: Array) -> tuple[slice, slice]:
    lit = photons > WELL_LIT * photons.max()
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _show(figure: FigureBase, axes: Any, values: Array, lit: Array, colours: str, title: str) -> None:
    low, high = np.percentile(values[lit], [0.5, 99.5])
    shown = np.where(lit, values, np.nan)
    image = axes.imshow(shown, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
    figure.colorbar(image, ax=axes, shrink=0.8)


def _scale_bar(axes: Any, width_px: int, pixel_m: float) -> None:
    length_m = max((bar for bar in SCALE_BARS_M if bar < width_px * pixel_m / 4), default=pixel_m)
    label = f"{length_m * 1e6:g} µm" if length_m >= 1e-6 else f"{length_m * 1e9:g} nm"
    left, bottom = 0.04, 0.04
    length = length_m / pixel_m / width_px
    outline = [withStroke(linewidth=3, foreground="k")]
    line = {"transform": axes.transAxes, "color": "w", "path_effects": outline}
    axes.plot([left, left + length], [bottom, bottom], lw=4, solid_capstyle="butt", **line)
    axes.text(left + length / 2, bottom + 0.015, label, ha="center", va="bottom", **line)
