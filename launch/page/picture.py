"""A live image as the bytes that the web page draws: maps in 65535 steps, at most 1024 pixels wide.

One packet is: uint32 length of the header, little endian; the header, JSON padded to a multiple of 4 bytes;
the path, (frame, 2) float32 in drawn pixels, (y, x); then each map of the header, (row, col) uint16, where 0
is an unknown pixel and 1..65535 span `low`..`high`. The page takes its colour range from `percentiles`, those
of the lit values. Levels of `source` are its values.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launch.results.colours import PERCENTILES, drawn_phase
from operators.metrics.gauge import flattened
from operators.mosaic.scan_maps import MAPS, on_pixels
from stream.live.image import LiveImage
from stream.plain_json import plain_json

MAX_SIDE_PX = 1024
MAX_PATH = 20_000
UNITS = {
    "amplitude": "transmission",
    "phase": "rad",
    "phase_with_ramp": "rad",
    "sigma": "rad",
    "photons": "photons/px",
    "source": "",
    "intensity": "photons",
    "dpc": "rad",
    "dark_field": "px",
    "gradient_y": "rad/px",
    "gradient_x": "rad/px",
}  # of every map
TOP = 65535  # the highest level
_CHOICES = (0, 0.1, 0.5, 1, 2, 5, 95, 98, 99, 99.5, 99.9, 100)  # percentiles that the page offers
_SAMPLES = 1 << 16  # of a map, for its range: percentiles of more take longer and say the same
_MARGIN = 8  # spans that the steps go beyond the lit values; the noise of a rim may lie outside
_FROM_ZERO = {"sigma", "photons"}
_WRAPS = {"phase", "phase_with_ramp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """One map in steps, with what the page needs to give it colours.

    Attributes
    ----------
    low, high : float
        What levels 1 and 65535 stand for.
    least, most : float
        Of all values: those beyond `low` and `high` have the levels 1 and 65535, too.
    percentiles : dict of float to float
        Of the lit values.
    is_cyclic : bool
        Whether it is a phase that wraps, drawn as a whole circle.
    levels : (row, col) uint16
    """

    name: str
    low: float
    high: float
    least: float
    most: float
    percentiles: dict[float, float]
    levels: NDArray[np.uint16]
    is_cyclic: bool = False

    def header(self) -> dict[str, Any]:
        """Returns what a packet says about it."""
        return {
            "name": self.name,
            "unit": UNITS[self.name],
            "low": self.low,
            "high": self.high,
            "least": self.least,
            "most": self.most,
            "percentiles": self.percentiles,
            "from_zero": self.name in _FROM_ZERO,
            "is_cyclic": self.is_cyclic,
        }


class Drawing:
    """The maps of one image, each made when somebody first wants it.

    Parameters
    ----------
    image : LiveImage
    max_side_px : int, optional
        A larger image is drawn in blocks of several pixels.
    """

    def __init__(self, image: LiveImage, max_side_px: int = MAX_SIDE_PX) -> None:
        self.image = image
        self.binning = max(1, -(-max(image.shape) // max_side_px))
        self._made: dict[str, Map] = {}

    def packet(self, names: Iterable[str] = UNITS) -> bytes:
        """Returns the packet with the maps of these names."""
        maps = [self.map(name) for name in names]
        path = _path(self.image, self.binning)
        header = {
            "scan": self.image.scan,
            "version": self.image.version,
            "shape": self._photons.shape,
            "origin_px": self.image.origin_px,
            "pixel_m": self.image.object_pixel_m * self.binning,
            "binning": self.binning,
            "has_object": bool(self._known.any()),
            "n_path": len(path),
            "percentile": PERCENTILES[0],
            "maps": [m.header() for m in maps],
        }
        text = plain_json(header)
        text += b" " * (-len(text) % 4)
        parts = [len(text).to_bytes(4, "little"), text, path.tobytes(), *(m.levels.tobytes() for m in maps)]
        return b"".join(parts)

    def map(self, name: str) -> Map:
        """Returns a map in steps."""
        if name not in self._made:
            self._made[name] = self._in_steps(name)
        return self._made[name]

    def values(self, name: str) -> NDArray[np.float32]:
        """Returns the values of a map, (row, col), in `UNITS`; NaN where nothing is known.

        Notes
        -----
        Each is the mean over a block's known pixels. The phase of an object is known up to a constant and,
        with a probe that is not, a linear ramp. Both maps of it are without their mean, `phase` without the
        mean ramp of all that is known too, a sample's own slope with it. Of `MAPS`, which the patterns alone
        give, each pixel has the value of its cell.
        """
        match name:
            case "amplitude":
                return self._mean(np.abs(self.image.object))
            case "phase":
                weights = np.where(self._known & np.isfinite(self.image.object), self.image.photons, 0)
                return _phase(self._mean(flattened(self.image.object, weights)[0]))
            case "phase_with_ramp":
                return _phase(self._mean(self.image.object))
            case "sigma":
                return self._mean(self.image.sigma)
            case "photons":
                return self._photons
            case "intensity" | "dpc" | "dark_field" | "gradient_y" | "gradient_x":
                maps, cell_px = self._scan_maps
                return on_pixels(maps[name], cell_px, self._photons.shape, self.binning)
            case _:
                source = _block_max(self.image.source, self.binning).astype(np.float32)
                return np.where(source > 0, source, np.nan)

    @cached_property
    def _scan_maps(self) -> tuple[dict[str, NDArray[np.float32]], float]:
        return self.image.scan_maps()

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        return self.image.coverage

    @cached_property
    def _photons(self) -> NDArray[np.float32]:
        return self._mean(self.image.photons)

    @cached_property
    def _is_lit(self) -> NDArray[np.bool_]:
        # The rim of the image is lit by the tails of the probe only; its noise must not set the contrast.
        return self._photons >= 0.1 * _median(self._photons[np.isfinite(self._photons)])

    def _mean(self, values: NDArray[Any]) -> NDArray[Any]:
        """The mean of each block's known values, NaN where there are none."""
        usable = self._known & np.isfinite(values)
        if self.binning == 1:
            return np.where(usable, values, np.float32(np.nan))
        n_usable = _block_sum(usable.astype(np.float32), self.binning)
        total = _block_sum(np.where(usable, values, 0), self.binning)
        return np.where(n_usable > 0, total / np.maximum(n_usable, 1), np.float32(np.nan))

    def _percentiles(self, values: NDArray[np.float32], *, is_of_object: bool) -> dict[float, float]:
        step = -(-values.size // _SAMPLES) or 1
        lit = values.ravel()[::step]
        if is_of_object:
            lit = lit[self._is_lit.ravel()[::step]]
        lit = lit[np.isfinite(lit)]
        if not lit.size:
            return {p: p / 100 for p in _CHOICES}
        return dict(zip(_CHOICES, np.percentile(lit, _CHOICES).tolist(), strict=True))

    def _in_steps(self, name: str) -> Map:
        values = self.values(name)
        if name == "source":
            levels = np.nan_to_num(values).astype(np.uint16)
            return Map(name=name, low=1, high=TOP, least=1, most=TOP, percentiles={}, levels=levels)
        percentiles = self._percentiles(values, is_of_object=name not in MAPS)
        low, high = (percentiles[p] for p in PERCENTILES)
        least, most = (float(f.reduce(values, axis=None, initial=low)) for f in (np.fmin, np.fmax))
        if is_cyclic := name in _WRAPS and drawn_phase(low, high)[0] == "cyclic":
            low, high = -np.pi, np.pi
        else:
            margin = _MARGIN * (high - low)
            low, high = max(least, low - margin), min(most, high + margin)
            low, high = _wide(min(low, 0.0) if name in _FROM_ZERO else low, high)
        levels = _levels(values, low, high)
        return Map(
            name=name,
            low=low,
            high=high,
            least=least,
            most=most,
            percentiles=percentiles,
            levels=levels,
            is_cyclic=is_cyclic,
        )


def read_map(packet: bytes, name: str) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Returns the header of a packet, and the values of a map in it; NaN where nothing is known.

    Raises
    ------
    ValueError
        If the packet has no such map.
    """
    n_header = int.from_bytes(packet[:4], "little")
    header = json.loads(packet[4 : 4 + n_header])
    names = [entry["name"] for entry in header["maps"]]
    if name not in names:
        raise ValueError(f"this picture has no {name}, only {', '.join(names)}")
    entry, n_values = header["maps"][names.index(name)], int(np.prod(header["shape"]))
    first = 4 + n_header + 8 * header["n_path"] + 2 * n_values * names.index(name)
    levels = np.frombuffer(packet, "<u2", n_values, first).reshape(header["shape"])
    values = entry["low"] + (levels - np.float32(1)) * np.float32((entry["high"] - entry["low"]) / (TOP - 1))
    return header, np.where(levels > 0, values, np.nan).astype(np.float32)


def _phase(object_: NDArray[Any]) -> NDArray[np.float32]:
    mean = np.sum(object_, where=np.isfinite(object_))
    return np.angle(object_ * np.exp(-1j * np.angle(mean)).astype(np.complex64))


def _wide(low: float, high: float) -> tuple[float, float]:
    """A range that a flat map has too, wide enough that rounding noise is not drawn as a sample."""
    return low, max(high, low + 1e-3 * max(abs(low), 1e-3))


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if values.size else 0.0


def _levels(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint16]:
    steps = values - np.float32(low)
    steps *= np.float32((TOP - 1) / (high - low))
    steps += np.float32(1.5)
    np.clip(steps, 1, TOP, out=steps)
    np.nan_to_num(steps, copy=False, nan=0)
    return steps.astype(np.uint16)


def _blocks(values: NDArray[Any], factor: int) -> NDArray[Any]:
    n_rows, n_columns = (-(-length // factor) for length in values.shape)
    margins = [(0, n * factor - length) for n, length in zip((n_rows, n_columns), values.shape, strict=True)]
    return np.pad(values, margins).reshape(n_rows, factor, n_columns, factor)


def _block_sum(values: NDArray[Any], factor: int) -> NDArray[Any]:
    return values if factor == 1 else _blocks(values, factor).sum(axis=(1, 3))


def _block_max(values: NDArray[Any], factor: int) -> NDArray[Any]:
    return values if factor == 1 else _blocks(values, factor).max(axis=(1, 3))


def _path(image: LiveImage, factor: int) -> NDArray[np.float32]:
    """The path in drawn pixels, thinned so that the newest position always stays."""
    step = -(-len(image.path) // MAX_PATH) or 1
    newest_first = image.path[::-1][::step]
    origin = np.asarray(image.origin_px, np.float64)
    return ((newest_first[::-1] - origin) / factor).astype("<f4")
