"""A version of the live image as the fields of NTNDArrays, full size, with what each says of itself."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launch.page.picture import UNITS, Drawing
from stream.detector.pva.ntndarray import array_fields
from stream.live.image import LiveImage

IMAGES = {
    "Amplitude": ("amplitude", "modulus of the transmission"),
    "Phase": ("phase", "phase of the transmission without its mean and its mean ramp, as the page shows it"),
    "Sigma": ("sigma", "standard uncertainty of the phase"),
}
"""The map that each PV holds, by the end of the PV's name, and what it is."""
_INT32 = 0x7FFFFFFF  # the numbers of an NTNDArray


def image_fields(image: LiveImage) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the end of the name of each PV of an image and the fields of its NTNDArray.

    The values are float32, (row, col), NaN where nothing is known. `uniqueId` is the version.
    """
    drawing, stamp_s = Drawing(image, max(image.shape)), time.time()
    said = _said(image)
    for name, (layer, meaning) in IMAGES.items():
        attributes = said | {"unit": UNITS[layer], "meaning": meaning}
        yield name, _fields(drawing.values(layer), image.version & _INT32, stamp_s, attributes)


def no_image() -> dict[str, Any]:
    """Returns the fields of a PV before the first image: one pixel of which nothing is known."""
    return _fields(np.full((1, 1), np.nan, np.float32), 0, time.time(), {"meaning": "no image yet"})


def _said(image: LiveImage) -> dict[str, Any]:
    row, column = image.origin_px
    return {
        "ColorMode": 0,
        "scan": image.scan,
        "version": image.version,
        "frames_seen": image.frames_seen,
        "epoch": image.epoch,
        "is_final": image.is_final,
        "pixel_m": image.object_pixel_m,
        "origin_y_m": row * image.object_pixel_m,
        "origin_x_m": column * image.object_pixel_m,
        "model": image.model,
        "config_hash": image.config_hash,
        "run_id": image.run_id,
    }


def _fields(
    values: NDArray[np.float32], number: int, stamp_s: float, attributes: dict[str, Any]
) -> dict[str, Any]:
    told = [{"name": name, "value": value} for name, value in attributes.items()]
    return array_fields(np.asarray(values, np.float32), number, stamp_s) | {"attribute": told}
