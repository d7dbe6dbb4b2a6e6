"""A live image as the bytes that the web page draws: each map in 255 steps, at most 1024 pixels wide.

One packet is: uint32 length of the header, little endian; the header, JSON padded to a multiple of 4 bytes;
the path, (frame, 2) float32 in drawn pixels, (y, x); then every map of the header in order, (row, col) uint8,
where 0 is an unknown pixel and 1..255 span `low`..`high`.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launch.results.colours import PERCENTILES, drawn_phase
from operators.metrics.gauge import flattened
from stream.live.image import LiveImage

MAX_SIDE_PX = 1024
MAX_PATH = 20_000
_SAMPLES = 1 << 16  # of a map, for its range: percentiles of more take longer and say the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """One map in 255 steps, with what its colour bar says."""

    name: str
    unit: str
    low: float
    high: float
    levels: NDArray[np.uint8]
    is_cyclic: bool = False


def encode_picture(image: LiveImage) -> bytes:
    """Returns the packet of `image`."""
    factor = max(1, -(-max(image.object.shape) // MAX_SIDE_PX))
    maps = draw_maps(image, factor)
    path = _path(image, factor)
    header = {
        "scan": image.scan,
        "version": image.version,
        "shape": maps[0].levels.shape,
        "origin_px": image.origin_px,
        "pixel_m": image.object_pixel_m * factor,
        "binning": factor,
        "n_path": len(path),
        "maps": [
            {"name": m.name, "unit": m.unit, "low": m.low, "high": m.high, "is_cyclic": m.is_cyclic}
            for m in maps
        ],
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    parts = [len(text).to_bytes(4, "little"), text, path.tobytes(), *(m.levels.tobytes() for m in maps)]
    return b"".join(parts)


def draw_maps(image: LiveImage, factor: int) -> list[Map]:
    """Returns amplitude, phase, phase_with_ramp, sigma, photons and source, of blocks of `factor` pixels.

    Notes
    -----
    A map is the mean over a block's known pixels. The phase of an object is known up to a constant and, with
    a probe that is not, a linear ramp. Both maps of it are drawn without their mean, `phase` without the mean
    ramp of all that is known too, a sample's own slope with it. They fill a fitted range while they stay
    within half a turn, else the whole circle.
    """
    known = image.coverage
    weights = np.where(known & np.isfinite(image.object), image.photons, 0)

    def average(values: NDArray[Any]) -> NDArray[Any]:
        """The mean of each block's known values, NaN where there are none."""
        usable = known & np.isfinite(values)
        n_usable = _block_sum(usable.astype(np.float32), factor)
        total = _block_sum(np.where(usable, values, 0), factor)
        return np.where(n_usable > 0, total / np.maximum(n_usable, 1), np.nan)

    photons = average(image.photons)
    # The rim of the image is lit by the tails of the probe only; its noise must not set the contrast.
    is_lit = photons >= 0.1 * _median(photons[np.isfinite(photons)])
    flat, _ = flattened(image.object, weights)
    return [
        _fitted("amplitude", "", average(np.abs(image.object)), is_lit),
        _phase("phase", average(flat), is_lit),
        _phase("phase_with_ramp", average(image.object), is_lit),
        _from_zero("sigma", "rad", average(image.sigma), is_lit),
        _from_zero("photons", "photons/px", photons, is_lit),
        Map(name="source", unit="", low=1, high=255, levels=_block_max(image.source, factor)),
    ]


def _phase(name: str, object_: NDArray[Any], is_lit: NDArray[np.bool_]) -> Map:
    mean = np.sum(object_, where=np.isfinite(object_))
    phase = np.angle(object_ * np.exp(-1j * np.angle(mean)))
    colours, low, high = drawn_phase(*_range(phase[is_lit], PERCENTILES))
    levels = _levels(phase, low, high)
    return Map(name=name, unit="rad", low=low, high=high, levels=levels, is_cyclic=colours == "cyclic")


def _fitted(name: str, unit: str, values: NDArray[Any], is_lit: NDArray[np.bool_]) -> Map:
    low, high = _range(values[is_lit], PERCENTILES)
    return Map(name=name, unit=unit, low=low, high=high, levels=_levels(values, low, high))


def _from_zero(name: str, unit: str, values: NDArray[Any], is_lit: NDArray[np.bool_]) -> Map:
    _, high = _range(values[is_lit], PERCENTILES)
    return Map(name=name, unit=unit, low=0.0, high=high, levels=_levels(values, 0.0, high))


def _range(values: NDArray[Any], percentiles: tuple[float, float]) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values[:: -(-values.size // _SAMPLES)], percentiles)
    # A flat map gets a range too, wide enough that rounding noise is not drawn as a sample.
    return float(low), float(max(high, low + 1e-3 * max(abs(low), 1e-3)))


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if values.size else 0.0


def _levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    is_known = np.isfinite(values)
    steps = np.clip((np.where(is_known, values, low) - low) * (254 / (high - low)), 0, 254)
    return np.where(is_known, np.rint(steps) + 1, 0).astype(np.uint8)


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
