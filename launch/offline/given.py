"""What a user says of a recorded scan beside what lies in it: where it is silent, or wrong."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from launch.offline.recorded import RecordedScan, of_file, open_recorded
from launch.offline.task import GEOMETRY_OPTIONS
from operators.arrays import Mask
from operators.optics.preprocess import Preprocess
from operators.optics.sampling import readable
from stream.files.arrays import read_array
from stream.files.base import geometry_of
from stream.files.cxi import is_scan
from stream.files.plain import Layout, read_plain, read_positions
from stream.files.probe import read_probe

_WORDS = {"energy_ev": "energy", "detector_distance_m": "distance", "detector_pixel_m": "detector pixel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is given; None where the scan says itself.

    Attributes
    ----------
    layout : Layout
        Where frames and positions lie in a file that follows no convention.
    energy_ev, detector_distance_m, detector_pixel_m : float, optional
        The pixel is the detector's own, before binning.
    mask : Path, optional
        .npy of the frame's or the pattern's shape; not zero where a pixel is valid.
    probe : Path, optional
        As for `stream.files.probe.read_probe`.
    crop : int, optional
        Side of the square of detector pixels that is used.
    centre : (int, int), optional
        Its middle, the pixel (row, column) of the direct beam; by default that of the frame.
    binning : int
        Side of the square of detector pixels that becomes one pixel.
    """

    layout: Layout = field(default_factory=Layout)
    energy_ev: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_m: float | None = None
    mask: Path | None = None
    probe: Path | None = None
    crop: int | None = None
    centre: tuple[int, int] | None = None
    binning: int = 1

    @property
    def files(self) -> list[Path]:
        """The files that are named."""
        table = Path(self.layout.positions) if self.layout.positions else None
        return [path for path in (self.mask, self.probe, table) if path is not None]

    def applied(self, scan: RecordedScan) -> RecordedScan:
        """Returns the scan with what is given, and a sentence for each in its `notes`.

        Raises
        ------
        ValueError
            If a file is not as wanted, or what is given does not fit the frames.
        """
        notes = list(scan.notes)
        scan = self._with_geometry(scan, notes)
        scan = self._with_mask(scan, notes)
        if self.probe is not None:
            probe = read_probe(self.probe)
            notes.append(f"probe of {self.probe}, {len(probe)} mode{'s' * (len(probe) > 1)}, as given")
            scan = replace(scan, probe=probe, trusts_probe=False)
        return replace(scan, notes=tuple(notes))

    def _with_geometry(self, scan: RecordedScan, notes: list[str]) -> RecordedScan:
        told: dict[str, float] = dict(scan.told)
        n_pixels = scan.frames.shape[-1]
        if scan.geometry is not None:
            told = {name: getattr(scan.geometry, name) for name in GEOMETRY_OPTIONS}
            n_pixels = scan.geometry.n_pixels
        for name, (option, unit) in GEOMETRY_OPTIONS.items():
            value, before = getattr(self, name), told.get(name)
            if value is None:
                continue
            if not 0 < value < math.inf:
                raise ValueError(f"{option}: wanted more than 0 {unit}, got {value:g}")
            instead = f" instead of {readable(before, unit)}" if before not in (None, value) else ""
            notes.append(f"{_WORDS[name]} {readable(value, unit)}{instead}, as given")
            told[name] = value
        if not (self.crop or self.centre or self.binning > 1):
            if scan.preprocess is None and scan.frames.shape[1] != scan.frames.shape[2]:
                rows, columns = scan.frames.shape[1:]
                raise ValueError(
                    f"{scan.called}: frames are {rows} x {columns}, patterns are square: say how much "
                    f"is used, --crop N, at most {min(rows, columns)}, and --centre where the beam is not in "
                    "the middle"
                )
            return replace(scan, told=told, geometry=geometry_of(told, n_pixels))
        side = self.crop or min(scan.frames.shape[1:])
        if "detector_pixel_m" in told:
            told["detector_pixel_m"] *= self.binning
        preprocess = Preprocess(
            frame_shape=tuple(scan.frames.shape[1:]),
            n_pixels=side // self.binning,
            centre=self.centre,
            binning=self.binning,
            valid_pixels=scan.mask,
        )
        notes.append(f"{side} x {side} pixels of frames of {' x '.join(map(str, scan.frames.shape[1:]))}")
        geometry = geometry_of(told, preprocess.n_pixels)
        return replace(scan, told=told, geometry=geometry, preprocess=lambda: preprocess)

    def _with_mask(self, scan: RecordedScan, notes: list[str]) -> RecordedScan:
        if self.mask is None:
            return scan
        mask = _read_mask(self.mask)
        n_bad = int((~mask).sum())
        notes.append(f"mask of {self.mask}: {n_bad} of {mask.size} pixels are not valid")
        if n_bad > mask.size / 2:
            notes[-1] += ": is it the other way round? Wanted is true where a pixel is valid"
        prepare = scan.preprocess
        if prepare is None:
            return replace(scan, mask=mask)
        return replace(scan, mask=mask, preprocess=lambda: replace(prepare(), valid_pixels=mask))


@contextmanager
def open_given(source: str, store: Path | None, given: Given) -> Iterator[RecordedScan]:
    """Yields the scan called `source` with what is `given`; the rest is as of `open_recorded`.

    A file that follows no convention is read as `given.layout` says.

    Raises
    ------
    ValueError
        If there is no such scan, or what is given does not fit it.
    """
    path, layout = Path(source), given.layout
    reopen = partial(open_given, source, store, given)
    if path.is_file() and (layout.data or not is_scan(path)):
        with read_plain(path, layout) as file:
            yield given.applied(replace(of_file(file), source=source, reopen=reopen))
        return
    with open_recorded(source, store) as scan:
        if not layout.positions and (layout.unit or layout.columns or layout.signs):
            raise ValueError(
                f"{scan.called} has its own positions: --unit, --columns and --signs say how those of "
                "--positions are to be read"
            )
        if layout.positions:
            positions_m = read_positions(path, layout, len(scan.frames))
            note = f"positions of {layout.positions} instead of those of the scan"
            scan = replace(scan, positions_m=positions_m, notes=(*scan.notes, note))
        yield replace(given.applied(scan), reopen=reopen)


def _read_mask(path: Path) -> Mask:
    mask = read_array(path)
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(
            f"{path}: wanted a mask (row, col), not zero where a pixel is valid, found {mask.dtype} "
            f"{mask.shape}"
        )
    if not mask.any():
        raise ValueError(f"{path}: no pixel is valid; wanted not zero where a pixel is valid")
    return mask != 0
