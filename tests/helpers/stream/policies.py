"""A small policy and the live images of a sample with structure in one corner, for tests."""

from typing import Any

import msgspec
import numpy as np

from operators.geometry import Geometry
from operators.optics.probe import probe_fwhm_px, with_power, zone_plate_probe
from stream.live.image import LiveImage
from stream.steering.config import PolicyConfig
from stream.steering.motor_axes import Axes
from stream.steering.policy import Policy
from tests.helpers.stream.live_images import live_image

N_PIXELS, SIDE = 32, 232
GEOMETRY = Geometry(energy_ev=9000.0, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=N_PIXELS)
PIXEL_UM = GEOMETRY.object_pixel_m * 1e6
AXES = Axes(geometry=GEOMETRY, unit="um", signs=(1, 1))
LIMITS = ((-0.4 * PIXEL_UM, (SIDE - N_PIXELS + 0.4) * PIXEL_UM),) * 2
PROBE = with_power(zone_plate_probe(N_PIXELS, 10, 9)[None], 1e4)
ILLUMINATION = (np.abs(PROBE) ** 2).sum(axis=0)
DIAMETER_PX = probe_fwhm_px(PROBE)


def policy(motors: tuple[str, str] = ("y", "x"), **settings: Any) -> Policy:
    return Policy(PolicyConfig(**{"limits": LIMITS, **settings}).aims(AXES, motors), ILLUMINATION)


def image(
    version: int = 1, path: Any = (), sigma_rad: float = 0.1, corner_px: int = 80, **fields: Any
) -> LiveImage:
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    phase = np.where((rows < corner_px) & (columns < corner_px), 0.8 * ((rows // 5 + columns // 5) % 2), 0.0)
    object_ = np.exp(1j * (phase + rng.normal(0, 0.02, phase.shape))).astype(np.complex64)
    values = {
        "sigma": np.full(object_.shape, sigma_rad, np.float32),
        "photons": np.full(object_.shape, 60, np.float32),
        "path": np.asarray(path, np.float32).reshape(-1, 2),
        "object_pixel_m": GEOMETRY.object_pixel_m,
        "version": version,
        "frames_seen": len(path),
    }
    return live_image(object_, **values | fields)


def calibrated(coverage68: float | None, **fields_: Any) -> LiveImage:
    return msgspec.structs.replace(image(**fields_), coverage68=coverage68)
