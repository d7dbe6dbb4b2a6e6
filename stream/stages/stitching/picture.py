"""The picture of one scan while it is scanned: what it is made of, and what clients have not seen of it."""

import time
from collections.abc import Callable, Generator
from functools import partial
from itertools import islice

import msgspec
import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, abs2
from operators.engine.config import RefinerSnapshot
from operators.geometry import Bounds, window_corners
from operators.mosaic.joining import Joint
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import PART, stitching
from stream.live.frame_store import FrameStore
from stream.live.tile_store import TileStore
from stream.record.account import Accounts, Delay, incompleteness
from stream.record.ground_order import GroundOrder
from stream.record.passage import NONE
from stream.record.scan import Numbers, Scan, State
from stream.record.snapshot import SnapshotNews, read_news, read_snapshot, tile_bounds
from stream.record.tuned_weights import ModelCounts
from stream.stages.config import LiveConfig
from stream.stages.inputs import ImageOrigin, read_corners, read_patches
from stream.stages.stage import ScanWork
from stream.stages.stitching.composition import MOSAIC, Refined, compose
from stream.stages.stitching.error_bars import Calibration
from stream.stages.stitching.frame_moments import FRAMES_AT_ONCE, FrameMoments
from stream.wire.messages import ImageFigures, ObjectUpdate

STAGE = "stitcher"
AT_ONCE = 64  # tiles that a version brings beside those with new frames, which do not wait for the others
JOIN_SHARE = 0.1  # of the refined object that has changed when the mosaic is joined to it again
PUBLISHING = 0.3  # of a core at most goes into versions: on a large change they come more slowly
QUOTED_S = 0.25  # for which a time to image is quoted
SEEN = 0.02  # of a change of phase, rad, or amplitude: less than a step of a colour map
TAKING_UP = 0.2  # of a core at most goes into taking up what is refined


class LivePicture(ScanWork):
    """The picture of one scan, and what clients have not seen of it.

    Attributes
    ----------
    scan : Scan
    version : int
        Published last; those of the process before this one count, since clients have seen them.
    """

    def __init__(
        self,
        config: LiveConfig,
        origin: ImageOrigin,
        scan: Scan,
        clock: Callable[[], float],
        work_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._config, self._origin, self.scan = config, origin, scan
        self._clock, self._work_clock = clock, work_clock
        self._counters = scan.counters(STAGE, writable=True)
        self._stitched_s = scan.column("mosaicked_s", writable=True)
        self._tiles = TileStore(config.tile_px)
        self._calibration = Calibration(scan, self._tiles)
        self._mosaic = self._empty_mosaic()
        self._refined: Refined | None = None
        self._joint: Joint | None = None
        self._refined_version = self._tiles_version = 0
        # Since the two were joined: tiles of the refined object, islands of the mosaic.
        self._n_changed, self._is_turned = 0, False
        self._bounds: Bounds | None = None
        self._dirty: set[tuple[int, int]] = set()  # tiles with new frames, or of an island that was turned
        self._stale: dict[tuple[int, int], None] = {}  # others that have changed, the longest ago first
        self._placed: list[Numbers] = []  # frames in the mosaic, as they came
        self._unpublished = NONE  # of these, those of which a client cannot know
        self._unmarked = NONE  # and those that no process before this one has published
        self._path, self._models = FrameStore(2), ModelCounts(scan)
        self._moments, self._told = FrameMoments(scan, origin.optics), FrameStore(6)
        self._untold: list[tuple[Numbers, NDArray]] = []  # moments of which a client cannot know
        self._accounts, self._delay = Accounts(scan), Delay(scan)
        self._quoted_at, self._quoted_ms = float("-inf"), self._delay.recent_ms()
        self._is_final = self._is_stitched = False
        self._stitching: Generator[None, None, Mosaic] | None = None
        self.version = self._counters["version"]
        self._publish_at = self._take_up_at = float("-inf")  # the earliest; nothing has been published yet
        corners_of = partial(read_corners, scan, origin.optics.geometry)
        # No method of its own: a picture goes when the next one comes, not when Python looks for circles.
        self._order = GroundOrder(scan, STAGE, corners_of, partial(_illumination, origin, scan))
        before = scan.done(STAGE)
        for start in range(0, len(before), PART):
            self._place(before[start : start + PART])

    def first_of(self, ready: Numbers, n_most: int) -> Numbers:
        """Returns those that show the most new ground."""
        return self._order.first_of(ready, n_most)

    def handle(self, numbers: Numbers) -> None:
        """Adds these frames to the picture; it is published at the next interval."""
        self._order.take(numbers)
        self._place(numbers)
        self._unmarked = np.append(self._unmarked, numbers)
        self._publish_if_due()

    def idle(self, deadline: float) -> bool:
        """Takes up a newer refined object and publishes what is due."""
        if self._clock() >= self._take_up_at:
            before_s = self._work_clock()
            self._take_up_refined()
            self._take_up_at = self._clock() + (self._work_clock() - before_s) / TAKING_UP
        has_more = self._take_moments()
        self._publish_if_due()
        return has_more

    def rest_s(self, now: float) -> float:
        """Returns how long nothing is due."""
        return self._publish_at - now if self._has_news else float("inf")

    def closing(self, deadline: float) -> bool:
        """Stitches the mosaic of all frames; says whether there is more to do."""
        if self._unpublished.size:  # what came last does not wait for all the rest to be stitched again
            self._publish()
        while self._take_moments():
            if self._clock() >= deadline:
                return True
        if self._is_stitched or not self._origin.uses_network or not self._placed:
            return False
        self._stitching = self._stitching or self._all_frames()
        try:
            next(self._stitching)
            while self._clock() < deadline:
                next(self._stitching)
        except StopIteration as end:
            self._mosaic, self._is_stitched = end.value, True
        return not self._is_stitched

    def close(self) -> None:
        """Publishes the final picture: the mosaic in frame order and the last refined object."""
        self._take_up_refined()
        while self.closing(float("inf")):
            pass
        if self._is_stitched:
            self._join()
        self._calibration.write()
        self._is_final = True
        self._publish(is_whole=True)

    def hand_over(self) -> None:
        """Publishes what clients have not seen; the final picture is the finisher's."""
        if self._has_news or self._unpublished.size:
            self._publish(is_whole=True)

    def counts(self) -> dict[str, int]:
        """Returns the version published last."""
        return {"version": self.version}

    def frame_counts(self) -> dict[str, int]:
        """Returns how many frames of the scan are where."""
        return self._accounts.frame_counts()

    def news_after(self, scan: str, after: int) -> tuple[ObjectUpdate, list[NDArray]] | None:
        """Returns what a client with version `after` of `scan` does not have, None if nothing."""
        if self._publish_at == float("-inf"):
            return None
        after = after if scan == self.scan.name else -1
        if after >= self.version:
            return None
        bounds = self._bounds or Bounds(0, 0, 1, 1)
        update = ObjectUpdate(
            tile_px=self._config.tile_px,
            bounds=(bounds.top, bounds.left, bounds.bottom, bounds.right),
            figures=self._figures(),
        )
        return update, [
            *self._tiles.changed_after(after),
            *self._path.told_after(after),
            *self._told.told_after(after),
        ]

    def _figures(self) -> ImageFigures:
        origin, refined = self._origin, self._refined
        return ImageFigures(
            scan=self.scan.name,
            run_id=origin.run_id,
            version=self.version,
            object_pixel_m=origin.optics.geometry.object_pixel_m,
            frames_seen=self._path.n_frames,
            epoch=refined.epoch if refined else 0.0,
            model=origin.model,
            config_hash=origin.config_hash,
            error=refined.error if refined else None,
            time_to_image_ms=self._time_to_image_ms(),
            counts=self.frame_counts(),
            models=self._models.by_id(),
            is_final=self._is_final,
            note=incompleteness(self.scan) if self._is_final else "",
            motors=origin.motors,
            pattern_px=origin.optics.geometry.n_pixels,
            **msgspec.structs.asdict(self._calibration.record),
        )

    def _time_to_image_ms(self) -> tuple[float, float] | None:
        """Return what is quoted: of so many frames it need not be found anew for every version."""
        now = self._clock()
        if self._is_final or now - self._quoted_at >= QUOTED_S:
            self._quoted_at, self._quoted_ms = now, self._delay.recent_ms()
        return self._quoted_ms

    def _place(self, numbers: Numbers) -> None:
        scan, geometry = self.scan, self._origin.optics.geometry
        corners = read_corners(scan, geometry, numbers)
        if self._origin.uses_network:
            if not self._mosaic.n_patches:  # the probe was found since the scan was opened
                self._mosaic = self._empty_mosaic()
            self._show_turned(self._mosaic.add(*read_patches(scan, numbers), corners))
        self._cover(Bounds.of_windows(corners, geometry.n_pixels))
        for number, lit in zip(numbers.tolist(), self._mosaic.lit_at(corners), strict=True):
            touched = tuple(self._tiles.touched_by(lit))
            self._dirty.update(touched)
            if self._origin.uses_refinement:
                self._calibration.place(number, touched)
        self._placed.append(numbers)
        self._unpublished = np.append(self._unpublished, numbers)

    def _show_turned(self, turned: list[Bounds]) -> None:
        self._is_turned |= bool(turned)
        for bounds in turned:
            self._dirty.update(self._tiles.touched_by(bounds))

    def _empty_mosaic(self) -> Mosaic:
        """Return a mosaic whose patches will weigh as they are illuminated."""
        n, illumination = self._origin.optics.geometry.n_pixels, _illumination(self._origin, self.scan)
        known = np.ones((n, n), np.float32) if illumination is None else illumination
        return Mosaic(known, self._origin.error_model)

    def _all_frames(self) -> Generator[None, None, Mosaic]:
        scan, numbers = self.scan, np.sort(np.concatenate(self._placed))
        return stitching(
            lambda rows: read_patches(scan, numbers[rows]),
            self._mosaic.weights,
            read_corners(scan, self._origin.optics.geometry, numbers),
            self._origin.error_model,
        )

    def _take_up_refined(self) -> None:
        version = self.scan.count("refinement", "version")
        if version == self._refined_version:
            return
        folder = self.scan.folder
        news = read_news(folder, self._tiles_version)
        if news is not None and self._refined is not None and 2 * len(news.tiles) <= news.n_tiles:
            taken = self._take_up_tiles(news)
        else:
            if news is not None and len(news.tiles) < news.n_tiles:
                news = read_news(folder)  # None if the tiles have just become one file
            snapshot = news.snapshot() if news else read_snapshot(folder)
            if snapshot is None:
                return
            taken = self._take_up_whole(snapshot)
        self._refined_version = version
        if taken and news is not None:
            self._tiles_version = news.version

    def _take_up_whole(self, snapshot: RefinerSnapshot) -> bool:
        """Take up all of the refined object, whose gauge is free; say whether it can be shown."""
        if not snapshot.is_finite:
            return False  # the last finite picture stays
        if self._refined is not None and self._refined.n_updates == snapshot.n_updates:
            return True  # the file was ahead of its version: compared with itself nothing moves
        self._refined = Refined.of(snapshot, self._mosaic, before=self._refined)
        self._cover(snapshot.bounds)
        self._join()
        self._calibration.look(self._mosaic, self._refined, self._joint)
        return True

    def _take_up_tiles(self, news: SnapshotNews) -> bool:
        """Take up what has changed of the refined object; say whether it can be shown."""
        assert self._refined is not None  # noqa: S101  (else the whole is taken up)
        values = (news.state.probe, *(object_ for object_, _ in news.tiles.values()))
        if not all(np.isfinite(value).all() for value in values):
            return False
        changed = [(tile_bounds(index), *layers) for index, layers in news.tiles.items()]
        before, self._refined = self._refined, self._refined.changed(news.state, changed)
        self._cover(news.state.bounds)
        for bounds in (*(tile[0] for tile in changed), *self._refined.decided_anew(before)):
            self._stale |= dict.fromkeys(self._tiles.touched_by(bounds))
        self._n_changed += len(changed)
        if self._joint is None or self._n_changed > JOIN_SHARE * news.n_tiles:
            self._join_anew()
        self._calibration.look(self._mosaic, self._refined, self._joint)
        return True

    def _cover(self, bounds: Bounds) -> None:
        self._bounds = bounds if self._bounds is None else self._bounds.union(bounds)

    def _join(self) -> None:
        """Let the mosaic continue the refined object, which is better known and does not move."""
        self._joint = None if self._refined is None else self._refined.joint(self._mosaic)
        self._n_changed, self._is_turned = 0, False
        if self._bounds is not None:
            self._stale |= dict.fromkeys(self._tiles.touched_by(self._bounds))

    def _join_anew(self) -> None:
        """Do so again; tiles of the mosaic change where it can be seen."""
        before, self._n_changed, self._is_turned = self._joint, 0, False
        self._joint = None if self._refined is None else self._refined.joint(self._mosaic)
        if before is None or self._joint is None or self._mosaic.bounds is None:
            self._join()
            return
        tiles = list(self._tiles.touched_by(self._mosaic.bounds))
        centres = (np.array(tiles) + 0.5) * self._config.tile_px
        moved = np.abs(self._joint.at(centres) - before.at(centres)) > SEEN * before.scale
        seen = (tile for tile, is_seen in zip(tiles, moved.tolist(), strict=True) if is_seen)
        self._stale |= dict.fromkeys(tile for tile in seen if self._tiles.shows(tile, MOSAIC))

    def _publish_if_due(self) -> None:
        if self._has_news and self._clock() >= self._publish_at:
            self._publish()

    @property
    def _has_news(self) -> bool:
        return bool(self._dirty or self._stale or self._untold)

    def _take_moments(self) -> bool:
        """Take what the next frames show, be they in the picture or not; say whether there may be more."""
        numbers, values = self._moments.take()
        if numbers.size:
            n_pixels = self._origin.optics.geometry.n_pixels
            self._cover(Bounds.of_windows(window_corners(values[:, :2] - n_pixels / 2), n_pixels))
            self._untold.append((numbers, values))
        return numbers.size == FRAMES_AT_ONCE

    def _publish(self, *, is_whole: bool = False) -> None:
        began, before_s = self._clock(), self._work_clock()
        if self._is_turned and self._joint is not None:
            self._join_anew()  # what joined the islands as they were would turn them again
        self.version += 1
        factor = self._calibration.factor
        for bounds in self._tiles.strips_of(self._next_tiles(is_whole)):
            layers = compose(bounds, self._mosaic, self._refined, joint=self._joint, sigma_factor=factor)
            self._tiles.put_strip(bounds, layers, self.version)
        now = self._clock()
        took_s = self._work_clock() - before_s
        self._publish_at = began + max(self._config.interval_s, took_s / PUBLISHING)
        self._stitched_s.write(self._unmarked, now)
        self.scan.mark(STAGE, self._unmarked, State.DONE)
        self._counters["version"] = self.version
        self._show(self._unpublished)
        for numbers, values in self._untold:
            self._told.put(numbers, values, self.version)
        self._untold.clear()
        self._unpublished = self._unmarked = NONE

    def _next_tiles(self, is_whole: bool) -> set[tuple[int, int]]:
        """Take the tiles of the next version off those that wait."""
        waiting = (tile for tile in self._stale if tile not in self._dirty)
        tiles = self._dirty.union(waiting if is_whole else islice(waiting, AT_ONCE))
        self._dirty = set()
        self._stale = {tile: None for tile in self._stale if tile not in tiles}
        return tiles

    def _show(self, numbers: Numbers) -> None:
        """Note that these frames are in the version that has just been published."""
        if not numbers.size:  # nobody may have made the columns
            return
        geometry = self._origin.optics.geometry
        centres_px = read_corners(self.scan, geometry, numbers) + geometry.n_pixels / 2
        self._path.put(numbers, centres_px, self.version)
        self._models.add(numbers)


def _illumination(origin: ImageOrigin, scan: Scan) -> Array | None:
    """Return |P|^2 summed over modes, None while the probe is not known."""
    probe = origin.optics.probe_of(scan)
    return None if probe is None else abs2(probe).sum(axis=0)
