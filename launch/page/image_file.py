"""What the page shows as a file of numbers: one map as TIFF."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, TiffTags

_CENTIMETRE = 3  # what TIFF's resolution counts pixels by
_TAGS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}


def tiff_bytes(values: NDArray[np.float32], pixel_m: float, description: str) -> bytes:
    """Returns a map as TIFF.

    Parameters
    ----------
    values : (row, col) float32
        NaN where nothing is known.
    pixel_m : float
        Pitch of the pixels, metres; stands in the tags of the resolution, pixels per centimetre.
    description : str
        Stands in the tag ImageDescription; ASCII.
    """
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[_TAGS["ImageDescription"]] = description
    tags[_TAGS["ResolutionUnit"]] = _CENTIMETRE
    for axis in ("XResolution", "YResolution"):
        tags[_TAGS[axis]] = TiffImagePlugin.IFDRational(round(0.1 / pixel_m), 10)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values, np.float32)).save(file, "TIFF", tiffinfo=tags)
    return file.getvalue()
