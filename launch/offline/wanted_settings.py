"""What a configuration should say of positions, beam centre and probe, by what the frames of a scan say."""

from pathlib import Path
from typing import Any

import numpy as np

from launch.config.config import Config
from launch.config.reading import Key
from launch.offline.orient import OrientedScan
from launch.offline.recorded import RecordedScan
from operators.optics.probe import curvature_of_disc
from operators.orientation.turn import Turn
from stream.documents.codec import DocumentError, read_documents
from stream.documents.config import PositionsConfig
from stream.documents.position_reader import PositionReader

_SAME_DISC = 0.15  # share by which a known defocus may be wrong
Names = tuple[str, str]  # of y and x


def wanted_settings(
    found: OrientedScan, scan: RecordedScan, config: Config | None, played_as: Names
) -> dict[Key, Any]:
    """Returns the settings that contradict the frames, with the values that they should have.

    Parameters
    ----------
    found : OrientedScan
        Of `scan`.
    scan : RecordedScan
    config : Config, optional
        Where they are to stand; without one, what the scan was recorded with is compared.
    played_as : (str, str)
        What the positions of a file are called where there is no run that recorded them.

    Raises
    ------
    ValueError
        If axes have to be exchanged and nobody knows their names, or positions lie in a file that says itself
        what they mean.
    """
    config = config or scan.config
    return {
        **_positions(found.orientation.turn, scan, config, played_as),
        **_centre(found, config),
        **_probe(found, config),
    }


def fits_around(found: OrientedScan, config: Config | None) -> int | None:
    """Returns how many pixels of a pattern have room around the beam, None where all that are wanted have."""
    if config is None:
        return None
    rows, columns = found.frame_shape
    row, column = found.whole_centre
    room = 2 * (min(row, column, rows - row, columns - column) // config.geometry.binning)
    return room if room < config.geometry.n_pixels else None


def _positions(turn: Turn, scan: RecordedScan, config: Config | None, played_as: Names) -> dict[Key, Any]:
    recorded = scan.config.positions if scan.config else None
    if recorded is not None and recorded.path is not None and recorded.path.suffix in (".cxi", ".h5"):
        if turn != Turn():
            raise ValueError(
                f"positions.path: {recorded.path} says itself what its positions mean: correct it"
            )
        return {}
    total = turn.after(Turn(signs=recorded.signs)) if recorded else turn
    current = config.positions if config else None
    wanted: dict[Key, Any] = {}
    if total.signs != (current.signs if current else (1, 1)):
        wanted["positions", "signs"] = list(total.signs)
    names = _names(scan, recorded) if recorded else played_as
    named = (current.y, current.x) if current and current.y else None
    if not total.exchanged and (named is None or names is None):
        return wanted
    if names is None:
        raise ValueError(
            f"{scan.called}: its axes have to be exchanged, and it does not say what they are called: name "
            "the columns of y and x the other way round, positions.y and positions.x"
        )
    y, x = names[::-1] if total.exchanged else names
    if (y, x) != named:
        wanted |= {("positions", "y"): y, ("positions", "x"): x}
    return wanted


def _names(scan: RecordedScan, recorded: PositionsConfig) -> Names | None:
    """Return what y and x were read from when the scan was recorded, None where that is not on record."""
    if recorded.y:
        return recorded.y, recorded.x
    if recorded.source == "file":
        return None
    reader = PositionReader(recorded.meaning())
    try:
        for name, document in read_documents(Path(scan.source)):
            if name == "descriptor":
                reader.read(name, document)
    except (DocumentError, OSError):
        return None
    return reader.fields_read


def _centre(found: OrientedScan, config: Config | None) -> dict[Key, Any]:
    if not found.is_off_centre or fits_around(found, config) is not None:
        return {}
    row, column = found.whole_centre
    return {("geometry", "centre"): [row, column]}


def _probe(found: OrientedScan, config: Config | None) -> dict[Key, Any]:
    """Return the defocus of a probe that is computed."""
    curvature = found.orientation.curvature
    if config is None or curvature is None or config.probe.source != "zone_plate":
        return {}
    n_pixels, told = config.geometry.n_pixels, config.probe
    assert told.pupil_radius_px is not None and told.disc_radius_px is not None  # noqa: S101 -- checked
    disc_px = abs(curvature) / curvature_of_disc(1.0, told.pupil_radius_px, n_pixels)
    if np.isclose(disc_px, told.disc_radius_px, rtol=_SAME_DISC, atol=1.0):
        return {}
    return {("probe", "disc_radius_px"): round(disc_px, 1)}
