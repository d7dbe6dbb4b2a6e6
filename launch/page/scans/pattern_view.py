"""The newest diffraction pattern beside the one that object and probe predict at its place.

The model is that of `operators.optics.forward`, with the object and probe that the picture has by then.
"""

from typing import NamedTuple

import numpy as np

from launch.page.scans.packet import encode_arrays, summed
from launch.page.scans.probe_view import probe_of
from launch.page.scans.records import NotThereError, ScanRecord
from operators.arrays import Mask, Patches, Patterns, Probe, centre_origin
from operators.geometry import Bounds
from operators.optics.forward import forward_residual, intensities, noise_residual, valid_photons
from operators.patches import extract_patches, widened
from stream.record.scan import Numbers, Scan, State
from stream.stages.inputs import read_corners, read_positions_px

MOST_SIDE_PX = 512
LOOKED_AT = 64  # newest frames among which one that the picture explains is looked for


class Model(NamedTuple):
    """What the picture says of one frame.

    Attributes
    ----------
    probe : (mode, y, x) complex64
    patches : (1, y, x) complex64
    words : str
        Where they come from.
    """

    probe: Probe
    patches: Patches
    words: str


def pattern_packet(record: ScanRecord, number: int | None = None) -> bytes:
    """Returns the pattern of one frame, photons, NaN where masked, and the model's if there is one yet.

    Parameters
    ----------
    record : ScanRecord
    number : int, optional
        Of the frame; by default the newest whose place is in the picture, or the newest of all while none is.

    Raises
    ------
    NotThereError
        If the frame is not recorded, or none is.
    """
    scan, geometry = record.scan, record.optics.geometry
    recorded = scan.done("subscriber")
    if not recorded.size:
        raise NotThereError("no frame has been recorded yet")
    if number is None:
        number = _newest_in_picture(record, recorded)
    elif number not in recorded:
        raise NotThereError(f"frame {number} of {scan.name} is not recorded; the newest is {recorded[-1]}")
    try:
        preprocess = record.optics.preprocess(scan)
    except (ValueError, OSError) as error:
        raise NotThereError(f"frame {number} cannot be prepared: {error}") from error
    pattern, mask = preprocess(scan.column("frames").get(number)[None]), preprocess.mask
    arrays, errors = {"measured": np.where(mask, pattern[0], np.nan)}, {}
    if (model := _model(record, number)) is not None:
        arrays["model"] = intensities(model.probe, model.patches)[0]
        errors = _errors(pattern, model, mask)
    shown = {name: summed(centre_origin(values), MOST_SIDE_PX) for name, values in arrays.items()}
    facts = {
        "scan": scan.name,
        "frame": number,
        "newest": int(recorded[-1]),
        "centre_px": _centre_px(record, number),
        "photons": float(pattern.sum()),
        "pixel_m": geometry.detector_pixel_m * shown["measured"][1],
        "words": model.words if model is not None else _in_flight(scan, number),
        **errors,
    }
    return encode_arrays(facts, {name: values for name, (values, _) in shown.items()})


def _newest_in_picture(record: ScanRecord, recorded: Numbers) -> int:
    """Return the newest frame that the picture explains, the newest of all where it explains none."""
    stage = "inference" if record.snapshot() is None else "refinement"
    for number in record.scan.done(stage)[: -LOOKED_AT - 1 : -1].tolist():
        if _model(record, number) is not None:
            return int(number)
    return int(recorded[-1])


def _model(record: ScanRecord, number: int) -> Model | None:
    scan, geometry, snapshot = record.scan, record.optics.geometry, record.snapshot()
    if snapshot is not None and _is_done(scan, "refinement", number):
        corners = read_corners(scan, geometry, np.array([number], np.int64))
        # the snapshot may be a little older than the ledger
        if snapshot.bounds.contains(Bounds.of_windows(corners, geometry.n_pixels)):
            patches = extract_patches(snapshot.object, corners - snapshot.bounds.origin, geometry.n_pixels)
            words = f"object and probe refined so far, epoch {snapshot.epoch:.1f}"
            return Model(snapshot.probe, patches, words)
    if _is_done(scan, "inference", number):
        patch, sigma = (scan.column(name).get(number)[None] for name in ("patches", "sigma"))
        patches, _ = widened(patch, sigma, geometry.n_pixels)
        return Model(probe_of(record).probe, patches, "the network's patch of this frame, not refined yet")
    return None


def _errors(pattern: Patterns, model: Model, mask: Mask) -> dict[str, float]:
    """Return the error of this frame as refinement counts it, and what noise alone would leave of it."""
    error = forward_residual(pattern, model.probe, model.patches, mask)
    noise = noise_residual(pattern, mask) / valid_photons(pattern, mask)
    photons = float((intensities(model.probe, model.patches)[0] * mask).sum())
    return {"error": float(error[0]), "noise": float(noise[0]), "model_photons": photons}


def _in_flight(scan: Scan, number: int) -> str:
    if _is_done(scan, "positions", number):
        return "no model yet: the frame is on its way into the picture"
    return "no model yet: no position has come for this frame"


def _centre_px(record: ScanRecord, number: int) -> list[float] | None:
    """Return the middle of the probe, absolute object pixels (y, x)."""
    if not _is_done(record.scan, "positions", number):
        return None
    geometry = record.optics.geometry
    corner = read_positions_px(record.scan, geometry, np.array([number], np.int64))[0]
    return [float(place) + geometry.n_pixels / 2 for place in corner]


def _is_done(scan: Scan, stage: str, number: int) -> bool:
    states = scan.states(stage)
    return number < len(states) and states[number] == State.DONE
