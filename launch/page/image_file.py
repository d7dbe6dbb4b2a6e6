"""What the page shows as a file of numbers: one map as TIFF, the whole image as CXI."""

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, TiffTags

from launch.page.picture import UNITS, Drawing, read_map
from launch.page.scans.probe_view import probe_of
from launch.page.scans.records import ScanRecord
from launch.results.cxi import Reconstruction, write_cxi
from operators.geometry import Bounds
from stream.live.image import LiveImage
from stream.plain_json import plain_json
from stream.wire.messages import ImageFigures

_CENTIMETRE = 3  # what TIFF's resolution counts pixels by
_TAGS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}


def tiff_of_image(image: LiveImage, name: str) -> bytes:
    """Returns a map of `image` as TIFF, every pixel of it."""
    drawing = Drawing(image, max(1, *image.shape))
    facts = {"map": name, "scan": image.scan, "version": image.version, "origin_px": image.origin_px}
    return _tiff(drawing.values(name), image.object_pixel_m, facts)


def tiff_of_packet(packet: bytes, name: str) -> bytes:
    """Returns a map of a picture packet as TIFF, at the picture's own pixels.

    Raises
    ------
    ValueError
        If the picture has no such map.
    """
    header, values = read_map(packet, name)
    facts = {key: header[key] for key in ("scan", "version", "origin_px", "binning")}
    return _tiff(values, header["pixel_m"], {"map": name} | facts)


def _tiff(values: NDArray[np.float32], pixel_m: float, facts: dict[str, Any]) -> bytes:
    """Return a map as TIFF: NaN where nothing is known, its pitch in the resolution, facts as JSON."""
    facts = facts | {"unit": UNITS[facts["map"]], "pixel_m": pixel_m, "program": "ptychostream"}
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[_TAGS["ImageDescription"]] = plain_json(facts).decode()
    tags[_TAGS["ResolutionUnit"]] = _CENTIMETRE
    for axis in ("XResolution", "YResolution"):
        tags[_TAGS[axis]] = TiffImagePlugin.IFDRational(round(0.1 / pixel_m), 10)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values, np.float32)).save(file, "TIFF", tiffinfo=tags)
    return file.getvalue()


def cxi_of_image(image: LiveImage, record: ScanRecord) -> bytes:
    """Returns `image` as a result file, with the best probe that is known by now.

    Positions are those of the frames that the stitcher has taken by now, a few more than the image shows
    while the scan is running.

    Raises
    ------
    NotThereError
        If no probe is known yet.
    """
    scan, top_left = record.scan, np.array(image.origin_px)
    numbers = scan.done("stitcher")
    result = Reconstruction(
        object=np.where(image.coverage, image.object, 1).astype(np.complex64),
        bounds=Bounds(*top_left.tolist(), *(top_left + image.shape).tolist()),
        probe=probe_of(record).probe,
        photons=image.photons,
        positions_m=scan.column("positions_m").read(numbers),
        frame_numbers=numbers,
        geometry=record.optics.geometry,
        error_history=np.zeros(0),
        maps={"sigma": image.sigma, "source": image.source},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.cxi"
        write_cxi(path, result, _provenance(image))
        return path.read_bytes()


def _provenance(image: LiveImage) -> dict[str, Any]:
    figures = {name: getattr(image, name) for name in ImageFigures.__struct_fields__}
    figures["image_version"] = figures.pop("version")  # `version` of a file is the program's
    return {
        name: value
        for name, value in figures.items()
        if value is not None and not isinstance(value, Mapping | tuple | msgspec.Struct)
    }
