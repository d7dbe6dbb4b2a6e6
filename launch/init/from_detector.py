"""What a detector tells of itself when a series begins."""

from typing import Any

from launch.config.reading import Key
from launch.init.told import Told
from stream.detector.protocol import StartMessage

_SIDES = (256, 128, 64)  # pixels of a pattern: enough for most beams, and quick


def tell_of_start(told: Told, source: str, start: StartMessage) -> None:
    """Adds what the start of a series says; fields that are left out, or 0, tell nothing."""
    said: dict[Key, Any] = {
        ("geometry", "energy_ev"): start.incident_energy or None,
        ("geometry", "detector_pixel_m"): start.pixel_size_x or None,
        ("geometry", "detector_distance_m"): abs(start.detector_distance_m or 0.0) or None,
    }
    if start.pixel_size_x and start.pixel_size_y and start.pixel_size_x != start.pixel_size_y:
        told.notes.append(
            f"{source} has pixels of {start.pixel_size_y:g} m x {start.pixel_size_x:g} m: wanted square ones"
        )
    if start.frame_shape is not None:
        said |= _window(start, start.frame_shape)
    told.add(source, said)


def _window(start: StartMessage, shape: tuple[int, int]) -> dict[Key, Any]:
    """Return how much of a frame is used, around the direct beam."""
    rows, columns = shape
    row, column = rows // 2, columns // 2
    said: dict[Key, Any] = {}
    if start.beam_center_x and start.beam_center_y:
        row, column = round(start.beam_center_y), round(start.beam_center_x)
        said["geometry", "centre"] = [row, column]
    room = 2 * min(row, column, rows - row, columns - column)
    side = next((side for side in _SIDES if side <= room), None)
    return said | {("geometry", "n_pixels"): side}
