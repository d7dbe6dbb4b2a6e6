"""Where two versions of the live image differ."""

import numpy as np

from operators.geometry import Bounds
from stream.live.image import LiveImage


def bounds_of(image: LiveImage) -> Bounds:
    """Returns the absolute object pixels that the image covers."""
    (top, left), (n_rows, n_columns) = image.origin_px, image.shape
    return Bounds(top, left, top + n_rows, left + n_columns)


def changed(before: LiveImage | None, image: LiveImage) -> Bounds | None:
    """Returns where `image` differs from `before`, a pixel more up and left, None if nowhere."""
    bounds = bounds_of(image)
    if before is None or before.scan != image.scan or bounds_of(before) != bounds:
        return bounds
    differs = (image.object != before.object) | (image.sigma != before.sigma)
    rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return Bounds(
        bounds.top + int(rows[0]) - 1,
        bounds.left + int(columns[0]) - 1,
        bounds.top + int(rows[-1]) + 1,
        bounds.left + int(columns[-1]) + 1,
    )
