"""The network's error bars held against refined ground, tile by tile, while the scan runs.

The arithmetic is that of `operators.mosaic.error_bars`.
"""

import logging
from collections.abc import Iterable

import numpy as np

from operators.mosaic.error_bars import Dial, tile_errors
from operators.mosaic.joining import Joint, Plane
from operators.mosaic.mosaic import Mosaic
from stream.live.tile_store import TileStore
from stream.record.calibration import write_calibration
from stream.record.columns import Column
from stream.record.scan import Scan
from stream.stages.stitching.composition import Refined
from stream.wire.messages import CalibrationRecord

log = logging.getLogger(__name__)

SETTLED_VISITS = 12  # of every frame that touches a tile, before refinement knows better than the network
LIT = 0.3  # of the brightest pixel: the fringe of a scan is refined badly
LEAST_PIXELS = 256  # of a tile, from which on its offset is known

Tile = tuple[int, int]


class Calibration:
    """Judges each tile once, when all frames that touch it have been refined often enough and it is shown.

    Parameters
    ----------
    scan : Scan
    tiles : TileStore
        As published.
    """

    def __init__(self, scan: Scan, tiles: TileStore) -> None:
        self._scan, self._tiles = scan, tiles
        self._dial = Dial()
        self._waiting: dict[Tile, list[int]] = {}  # frames that touch it, first one that was late before
        self._judged: set[Tile] = set()

    @property
    def factor(self) -> float:
        """What the mosaic's sigma is to be multiplied by."""
        return self._dial.factor

    @property
    def record(self) -> CalibrationRecord:
        """How true the error bars have turned out so far."""
        within68, within95 = self._dial.coverage or (None, None)
        return CalibrationRecord(
            coverage68=within68,
            coverage95=within95,
            sigma_factor=self.factor,
            n_calibrated=self._dial.n_tiles,
            alarm=self._dial.alarm,
        )

    def place(self, number: int, touched: Iterable[Tile]) -> None:
        """Takes note of the tiles that a frame touches."""
        for tile in touched:
            if tile not in self._judged:
                self._waiting.setdefault(tile, []).append(number)

    def look(self, mosaic: Mosaic, refined: Refined, joint: Joint | None) -> None:
        """Judges the tiles that have settled; a ramp between the two, as joined, is no error of either."""
        if not self._scan.has("visits"):
            return
        settled = self._settled(self._scan.column("visits"))
        plane = Plane() if joint is None else joint.plane
        before = self._dial.alarm
        for tile in settled:
            if self._judge(tile, mosaic, refined, plane):
                del self._waiting[tile]
                self._judged.add(tile)
        if self._dial.alarm and not before:
            log.warning("error bars of %s: %s", self._scan.name, self._dial.alarm)

    def _settled(self, visits: Column) -> list[Tile]:
        """Return the tiles of which every frame has its visits, from few of these while most have not."""
        slowest = visits.read([numbers[0] for numbers in self._waiting.values()]) >= SETTLED_VISITS
        settled = []
        for tile in [tile for tile, is_through in zip(self._waiting, slowest, strict=True) if is_through]:
            numbers = np.array(self._waiting[tile])
            n_visits = visits.read(numbers)
            if n_visits.min() >= SETTLED_VISITS:
                settled.append(tile)
            self._waiting[tile] = numbers[np.argsort(n_visits, kind="stable")].tolist()
        return settled

    def _judge(self, tile: Tile, mosaic: Mosaic, refined: Refined, plane: Plane) -> bool:
        """Say whether the tile is judged, or never can be; one that is withheld may be judged later."""
        bounds = self._tiles.bounds_of(tile).intersection(refined.bounds)
        bounds = None if bounds is None or mosaic.bounds is None else bounds.intersection(mosaic.bounds)
        if bounds is None:
            return True
        window = bounds.slices_in(refined.bounds)
        is_lit, is_withheld = refined.photons[window] > LIT * refined.brightest, refined.withheld[window]
        may_come = bool((is_lit & is_withheld).any())  # refinement knows no better there, as it is now
        known = is_lit & ~is_withheld
        if np.count_nonzero(known) < LEAST_PIXELS:
            return not may_come
        picture = mosaic.picture(bounds)
        known &= np.isfinite(picture.sigma)
        if np.count_nonzero(known) < LEAST_PIXELS:
            return not may_come
        errors = tile_errors(
            picture.object * plane.over(bounds), refined.object[window], picture.photons, known
        )
        self._dial.add(errors, picture.sigma[known], refined.sigma[window][known])
        return True

    def write(self) -> None:
        """Leaves the record in the scan's folder."""
        write_calibration(self._scan.folder, self.record)
