"""From the columns of a scan to what the operators take: patterns and pixels."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operators.arrays import (
    Array,
    ArrayModule,
    Corners,
    Mask,
    Patches,
    Patterns,
    Positions,
    Probe,
    corner_origin,
)
from operators.geometry import Geometry, window_corners
from operators.mosaic.error_bars import ErrorModel
from operators.optics.coherence import line_of_travel
from operators.optics.preprocess import Preprocess, at_one_flux, mean_frame
from operators.patches import widened
from stream.files.arrays import read_array
from stream.record.probe import found_probe
from stream.record.scan import Numbers, Scan
from stream.stages.config import GeometryConfig
from stream.wire.messages import MotorAxes

MOST_DARK = 1000  # frames of a scan without beam that are looked at


@dataclass(frozen=True)
class Optics:
    """What is known about instrument and frames before the scan.

    Attributes
    ----------
    config : GeometryConfig
    probe : Path or None
        .npy (mode, y, x) complex64, None if it is found during the scan.
    """

    config: GeometryConfig
    probe: Path | None = None

    @cached_property
    def geometry(self) -> Geometry:
        """The geometry of the patterns."""
        return self.config.geometry()

    def preprocess(self, scan: Scan) -> Preprocess:
        """Returns the preparation of this scan's frames; raises as `preprocess_of`."""
        return self.preprocess_of(scan.header.frame_shape)

    def preprocess_of(self, frame_shape: tuple[int, int]) -> Preprocess:
        """Returns the preparation of frames (row, column) of the detector.

        Raises
        ------
        ValueError
            Names the key: if the frames are smaller than the patterns wanted, or the mask is of another
            shape or leaves nothing.
        """
        return self._preprocess(frame_shape, self._valid_pixels())

    def pattern_mask(self) -> Mask | None:
        """Returns where the patterns are measured, (ky, kx) bool, corner-origin, None where everywhere.

        The frames are taken to be of the mask's shape; raises as `preprocess_of`.
        """
        valid = self._valid_pixels()
        if valid is None:
            return None
        if valid.shape == (self.geometry.n_pixels, self.geometry.n_pixels):
            return self._with_light(corner_origin(valid))
        return self._preprocess(valid.shape, valid).mask

    def _valid_pixels(self) -> Mask | None:
        mask = self.config.mask
        if mask is None:
            return None
        valid = read_array(mask)
        if valid.ndim != 2 or valid.dtype.kind not in "buif":
            raise ValueError(
                f"geometry.mask: {mask} holds {valid.dtype} of shape {valid.shape}, wanted true or false for "
                "each pixel of a frame (row, column)"
            )
        return valid.astype(bool)

    def _preprocess(self, frame_shape: tuple[int, int], valid: Mask | None) -> Preprocess:
        config, pattern_shape = self.config, (self.geometry.n_pixels, self.geometry.n_pixels)
        if valid is not None and valid.shape not in (frame_shape, pattern_shape):
            raise ValueError(
                f"geometry.mask: {config.mask} has shape {valid.shape}, wanted {frame_shape} as the frames "
                f"or {pattern_shape} as the patterns"
            )
        try:
            preprocess = Preprocess(
                frame_shape=frame_shape,
                n_pixels=self.geometry.n_pixels,
                centre=config.centre,
                binning=config.binning,
                valid_pixels=valid,
                background=0.0 if config.dark is None else _dark(config.dark),
                flat=None if config.flat is None else _flat(config.flat),
                photons_per_count=config.photons_per_count,
                transpose=config.transpose,
                flip_rows=config.flip_rows,
                flip_columns=config.flip_columns,
            )
        except ValueError as error:
            raise ValueError(f"geometry: {str(error).removeprefix('preprocess: ')}") from error
        self._with_light(preprocess.mask)
        return preprocess

    def _with_light(self, mask: Mask) -> Mask:
        if not mask.any():
            raise ValueError(f"geometry.mask: {self.config.mask} leaves no valid pixel in the patterns")
        return mask

    def load_probe(self) -> Probe:
        """Returns the known probe, (mode, y, x) complex64.

        Raises
        ------
        ValueError
            If there is none or its size is not that of a pattern.
        """
        if self.probe is None:
            raise ValueError("this stage needs a known probe: set probe.source to 'file' or 'zone_plate'")
        return load_probe(self.probe, self.geometry.n_pixels)

    def probe_of(self, scan: Scan) -> Probe | None:
        """Returns the known probe, or the one found in this scan, None while there is none."""
        return found_probe(scan) if self.probe is None else self.load_probe()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOrigin:
    """What the image of a run is made from, and what is stamped on it.

    Attributes
    ----------
    optics : Optics
    uses_network, uses_refinement : bool
        Which pictures there are.
    run_id, config_hash, model : str
        Versions of the run, its configuration and the network's weights, "" where there is none.
    error_model : ErrorModel
        Of the network's mosaics, as its model card has it.
    motors : MotorAxes or None
        What motor positions the pixels are.
    """

    optics: Optics
    uses_network: bool
    uses_refinement: bool
    run_id: str = ""
    config_hash: str = ""
    model: str = ""
    error_model: ErrorModel = field(default_factory=ErrorModel)
    motors: MotorAxes | None = None


def _dark(path: Path) -> Array:
    """Return what frames have without beam, (row, col) float32, counts."""
    if path.is_dir():
        if not (path / "scan.json").is_file():
            raise ValueError(f"dark: {path} is no recorded scan, which has a scan.json")
        scan = Scan(path)
        numbers = scan.done("subscriber")
        if not numbers.size:
            raise ValueError(f"dark: {path} has no frame")
        return mean_frame(scan.column("frames").read(numbers[:MOST_DARK]))
    frames = read_array(path)
    if frames.ndim not in (2, 3) or frames.dtype.kind not in "buif" or not np.isfinite(frames).all():
        raise ValueError(f"dark: {path} holds {frames.dtype} {frames.shape}, wanted counts (row, column)")
    return mean_frame(frames) if frames.ndim == 3 else frames.astype(np.float32)


def _flat(path: Path) -> Array:
    """Return how much each pixel counts of what falls on it, (row, col) float32."""
    flat = read_array(path)
    if flat.ndim != 2 or flat.dtype.kind not in "uif" or not (flat > 0).any():
        raise ValueError(
            f"flat: {path} holds {flat.dtype} {flat.shape}, wanted positive numbers (row, column)"
        )
    return flat.astype(np.float32)


def load_probe(path: Path, n_pixels: int) -> Probe:
    """Returns the probe in a .npy file, (mode, y, x) complex64.

    Raises
    ------
    ValueError
        If its size is not that of a pattern, or it carries no light.
    """
    probe = read_array(path).astype(np.complex64)
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.ndim != 3 or probe.shape[1:] != (n_pixels, n_pixels):
        raise ValueError(
            f"{path}: probe has shape {probe.shape}, patterns have {n_pixels} x {n_pixels} pixels: wanted "
            f"(mode, {n_pixels}, {n_pixels}); crop or pad the probe, or change geometry.n_pixels"
        )
    power = np.square(np.abs(probe)).sum(dtype=np.float64)
    if not (np.isfinite(power) and power > 0):
        found = "only zeros" if power == 0 else "values that are not finite"
        raise ValueError(f"{path}: the probe holds {found}")
    return probe


def read_patterns(scan: Scan, preprocess: Preprocess, numbers: Numbers, xp: ArrayModule = np) -> Patterns:
    """Returns the prepared patterns of recorded frames at one flux, prepared where arrays of `xp` live."""
    patterns = preprocess(xp.asarray(scan.column("frames").read(numbers)))
    return at_one_flux(patterns, read_flux(scan, numbers))


def read_flux(scan: Scan, numbers: Numbers) -> NDArray[np.float64] | None:
    """Returns the flux of frames over that of the monitor's reference, (frame,), None without a monitor."""
    return scan.column("flux").read(numbers) if numbers.size and scan.has("flux") else None


def read_patches(scan: Scan, numbers: Numbers) -> tuple[Patches, Array]:
    """Returns what the network made of frames it has done: the middle of their windows, as far as it sees.

    Returns
    -------
    patches : (frame, y, x) complex64
        Each has a global phase of its own.
    sigma : (frame, y, x) float16, rad
        Standard deviation of the phase.
    """
    return scan.column("patches").read(numbers), scan.column("sigma").read(numbers)


def read_wide_patches(scan: Scan, n_pixels: int, numbers: Numbers) -> tuple[Patches, Array]:
    """Returns the same as windows of `n_pixels`: around what the network sees nothing is known."""
    return widened(*read_patches(scan, numbers), n_pixels)


def read_positions_px(scan: Scan, geometry: Geometry, numbers: Numbers) -> Positions:
    """Returns (frame, 2) float64, top-left corners of the probe windows in absolute object pixels."""
    if not numbers.size:  # nobody may have made the column yet
        return np.zeros((0, 2))
    return geometry.to_pixels(scan.column("positions_m").read(numbers))


def read_travel_px(scan: Scan, geometry: Geometry, numbers: Numbers) -> tuple[float, float]:
    """Returns the way of the probe during a typical exposure, object pixels (y, x); 0 where none is known."""
    if not scan.has("travel_m"):
        return 0.0, 0.0
    y_m, x_m = line_of_travel(scan.column("travel_m").read(numbers))
    return y_m / geometry.object_pixel_m, x_m / geometry.object_pixel_m


def read_corners(scan: Scan, geometry: Geometry, numbers: Numbers) -> Corners:
    """Returns (frame, 2) int64, the windows' corners rounded to whole object pixels."""
    return window_corners(read_positions_px(scan, geometry, numbers))


def read_moments(scan: Scan, geometry: Geometry, numbers: Numbers) -> NDArray[np.float32]:
    """Returns what the patterns show by themselves, (frame, 6) float32, as clients get it.

    The probe's centre in absolute object pixels (y, x), and the columns of `operators.optics.moments`; these
    are 0 for frames that nobody has looked at.
    """
    centres_px = read_corners(scan, geometry, numbers) + geometry.n_pixels / 2
    columns = scan.column("moments").read(numbers) if scan.has("moments") else np.zeros((len(numbers), 4))
    return np.concatenate([centres_px, columns], axis=1).astype(np.float32)
