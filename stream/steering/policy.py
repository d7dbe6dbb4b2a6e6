"""Where to measure next: from the live image to recommended motor positions.

It has the methods that bluesky_adaptive's optimizers have: `ingest`, `suggest`, `get_best_points`,
`should_stop`. What it recommends depends on the images and points it was given and on the seed, on nothing
else.
"""

import hashlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from operators.arrays import Array, Corners, Positions
from operators.mosaic.error_bars import LEAST_68
from operators.optics.probe import probe_fwhm_px
from operators.steering.audit import Audit, Promise
from operators.steering.candidates import Candidates, Lattice
from operators.steering.dose import DoseMap
from operators.steering.importance import (
    LEAST_IMPORTANCE,
    RELEVANT,
    Quality,
    StopRule,
    Verdict,
    importance,
    inflation,
    predicted_gain,
    quality,
    uncertainty,
    verdicts,
)
from operators.steering.maps import Map, SuperPixels
from operators.steering.repair import REPAIR_LAG, Repairs
from operators.steering.selector import Selection, Selector
from operators.steering.survey import survey
from stream.live.image import LiveImage
from stream.steering.config import Aims
from stream.steering.image_changes import bounds_of, changed
from stream.steering.motor_axes import Limits
from stream.steering.optimizer import NamedPoints
from stream.steering.trust import calibration, is_trusted
from stream.wire.messages import Recommendation

EXPIRES_S = 60.0  # how long a recommendation is worth following
SPACING_DIAMETERS = 0.25
SURVEY_DIAMETERS = 1.5  # step of the first look: the network needs no overlap
FARTHEST_DIAMETERS = 3.0  # no hole is as wide once the field has been surveyed
MOST_RELEVANT = 0.6  # of the field: beyond, an even scan is as good and simpler
SAME_PLACE_DIAMETERS = 0.25
MOST_FAILURES = 2  # of exposures at one place


class Policy(NamedPoints):
    """Recommends points from what the live image knows and what has been measured.

    Parameters
    ----------
    aims : Aims
    illumination : (y, x) float32, photons
        What one exposure puts on each pixel of its window: |P|^2 summed over modes.
    places : (point, 2) float, motor positions (y, x), optional
        Nothing but these may be measured; anything within the limits unless given.

    Attributes
    ----------
    measured : (point, 2) float64
        Motor positions of all exposures so far.
    """

    def __init__(self, aims: Aims, illumination: Array, places: Positions | None = None) -> None:
        super().__init__(aims.motors)
        self.aims, self._illumination = aims, np.asarray(illumination, np.float32)
        self._places = None if places is None else aims.axes.centres(places)
        self._area = aims.axes.area(aims.limits)
        self._diameter_px = probe_fwhm_px(np.sqrt(self._illumination))
        self._sequence = -1
        self._region = aims.region
        self.forget()

    def forget(self) -> None:
        """Begin a new scan: nothing measured, nothing seen."""
        aims = self.aims
        self._selector = Selector(
            self._candidates(),
            DoseMap(self._area, self._illumination, aims.max_dose),
            self._diameter_px,
            overlap=aims.overlap,
            travel=aims.travel,
        )
        self.maps = self._empty_maps()
        centres = self._selector.lattice.centres
        self._cell = self.maps.cell_of(centres.reshape(-1, 2)).reshape(centres.shape[:2])
        self._note_region()
        self.audit = Audit(self.maps.cells.shape)
        self._survey = self._planned_survey()
        self._stop = StopRule(aims.target_rad)
        self._image: LiveImage | None = None
        self.measured: Positions = np.zeros((0, 2))
        self._centres: Corners = np.zeros((0, 2), np.int64)
        self._repairs = Repairs(max(SAME_PLACE_DIAMETERS * self._diameter_px, 1.5))
        self.failed: Positions = np.zeros((0, 2))
        self._offered = {}
        self._failures: Counter[tuple[int, ...]] = Counter()  # by centre
        self._digest = hashlib.sha256()
        self.selection: Selection | None = None  # the batch recommended last
        self._judged = -1  # version of the image that the stop rule saw last
        self._judge()

    @property
    def n_measured(self) -> int:
        """Exposures so far."""
        return len(self.measured)

    @property
    def is_surveyed(self) -> bool:
        """Whether the whole field has been measured once."""
        return not len(self._survey)

    @property
    def dose_peak(self) -> float:
        """Photons on the pixel that has most."""
        return self._selector.dose.peak

    def reaches(self, region: Limits) -> bool:
        """Return whether anything could be measured within `region`, motor positions."""
        return bool(self._inside(region, self._selector.lattice.centres).any())

    def restrict(self, region: Limits | None) -> None:
        """Measure within `region` only, motor positions, from now on; as configured when None."""
        region = self.aims.region if region is None else region
        if region == self._region:
            return
        self._region = region
        self._note_region()
        hopeless = [at for at in self._failures if self._is_hopeless(at)]
        done = np.array([*self._selector.graph.centres, *hopeless]).reshape(-1, 2)
        self._survey = _far_from(self._planned_survey(), done, SAME_PLACE_DIAMETERS * self._diameter_px)
        self._judge()

    def look(self, image: LiveImage, maps: SuperPixels | None = None) -> None:
        """Take the newest live image, or a recorded one's maps; what another scan showed is forgotten."""
        before, self._image = self._image, image
        if before is not None and before.scan != image.scan:
            self.maps = self._empty_maps()
            self._repairs.forget_image()
        self._repairs.look(image.path)
        if maps is not None:
            self.maps = maps
        elif (window := changed(before, image)) is not None:
            self.maps.update(image.object, image.sigma, image.photons, bounds_of(image), window)
        self._judge()
        n_over = image.frames_seen + image.counts.get("lost", 0) + image.counts.get("settling", 0)
        self.audit.settle(n_over, self._uncertainty)

    def count(self, measured: Positions) -> None:
        """Take the motor positions (point, 2) of all exposures so far; another list begins a new scan.

        Raises
        ------
        ValueError
            If a position is not finite, or not on the sample by any measure.
        """
        measured = np.asarray(measured, np.float64).reshape(-1, 2)
        centres = self.aims.axes.centres(measured)
        n_known = len(self.measured)
        if not np.array_equal(measured[:n_known], self.measured):
            image = self._image
            self.forget()
            n_known = 0
            if image is not None:
                self.look(image)
        new = centres[n_known:]
        self._selector.measured(new)
        self._digest.update(new.tobytes())
        self._survey = _far_from(self._survey, new, SAME_PLACE_DIAMETERS * self._diameter_px)
        self.measured, self._centres = measured.copy(), centres
        self._look_whether_to_stop()

    def settle(self) -> None:
        """Do what no answer waits for: bring the map of the dose up to date."""
        self._selector.dose.settle()

    def give_up(self, failed: Positions) -> None:
        """Take the motor positions (point, 2) of all exposures that failed so far, as often as they did.

        What failed once is recommended again; where it failed `MOST_FAILURES` times nothing is.
        """
        new = np.asarray(failed, np.float64).reshape(-1, 2)[len(self.failed) :]
        centres = self.aims.axes.centres(new)
        self.failed = np.concatenate([self.failed, new])
        self._digest.update(centres.tobytes())
        self._failures.update(map(tuple, centres.tolist()))
        same_px = SAME_PLACE_DIAMETERS * self._diameter_px
        hopeless = [at for at in dict.fromkeys(map(tuple, centres.tolist())) if self._is_hopeless(at)]
        for centre in hopeless:
            self._selector.give_up(centre, same_px)
        self._survey = _far_from(self._survey, np.array(hopeless, np.int64).reshape(-1, 2), same_px)

    def next_points(self, n_points: int) -> tuple[int, Positions]:
        """Return the number of a recommendation, and its points; none when it is enough."""
        recommendation, points = self.recommend(n_points)
        return recommendation.sequence, points

    def known(self) -> dict[str, float]:
        """Return what is known of the sample by what has been measured."""
        return {"sigma_q95_rad": self.quality.sigma_q95_rad, "n_measured": float(self.n_measured)}

    def should_stop(self) -> tuple[bool, str]:
        """Return whether what matters is known well enough, and why."""
        if not self._stop.is_met:
            return False, ""
        sigma, target = self.quality.sigma_q95_rad, self.aims.target_rad
        return True, f"95 % of what matters is known to {sigma:.3g} rad, wanted {target:.3g}"

    def recommend(
        self, n_points: int, *, run: str = "", question: int = 0, after: int = -1
    ) -> tuple[Recommendation, Positions]:
        """Return a recommendation and its points, motor positions (point, 2) in the order of travel.

        Parameters
        ----------
        n_points : int
        run, question : str, int
            What it answers.
        after : int
            The sequence number is above it.
        """
        self._sequence = max(self._sequence, after) + 1
        self._look_whether_to_stop()
        stop, why = self.should_stop()
        weights = self._candidate_weights
        map_hash = self._hash(weights)
        lost = self._worth_repairing(self._repairs.lost(self._centres))
        first = [*lost, *self._survey[:n_points].tolist()]
        chosen = self._selector.select(0 if stop else n_points, weights, first)
        self.selection = chosen
        repaired = {centre for centre in lost if centre in chosen.first}
        self._repairs.done(repaired)
        image, promise = self._image, self._promise(chosen.centres)
        self.audit.promise(promise)
        recommendation = Recommendation(
            run=run,
            question=question,
            sequence=self._sequence,
            scan=image.scan if image else "",
            frames_seen=image.frames_seen if image else 0,
            n_measured=self.n_measured,
            map_hash=map_hash,
            expires_s=EXPIRES_S,
            predicted_gain=float(promise.predicted.sum()) * self.maps.cell_px**2,
            shown_predicted_gain=self.audit.predicted_gain * self.maps.cell_px**2,
            realised_gain=self.audit.realised_gain * self.maps.cell_px**2,
            stop=stop,
            reasons=(why,) if stop else self._reasons(chosen, len(repaired)),
        )
        return recommendation, self.aims.axes.positions(chosen.centres)

    @property
    def is_even(self) -> bool:
        """Whether the field is scanned evenly: too much of it matters, or the claims cannot be believed."""
        is_believed = is_trusted(calibration(self._image)) and not self.audit.is_distrusted
        return self.quality.relevant_fraction > MOST_RELEVANT or not is_believed

    @property
    def _candidate_weights(self) -> NDArray[np.float32]:
        if not self.is_surveyed or self.is_even:
            return self._is_allowed
        effort = np.where(self.audit.is_abandoned, LEAST_IMPORTANCE, self._effort)
        weights: NDArray[np.float32] = effort.astype(np.float32).ravel()[self._cell] * self._is_allowed
        return weights

    def _note_region(self) -> None:
        self._is_allowed = self._inside_region(self._selector.lattice.centres)
        self._field = np.zeros(self.maps.cells.shape, bool)
        self._field.flat[self._cell[self._is_allowed > 0]] = True

    def _judge(self) -> None:
        self._weights: Map = importance(self.maps)
        self._effort: Map = self._weights * inflation(self.maps)
        self._uncertainty: Map = uncertainty(self.maps)
        self.quality: Quality = quality(self.maps, self._weights, self._field)

    def _empty_maps(self) -> SuperPixels:
        """Return maps of all that a probe within the limits can light."""
        return SuperPixels(self._area.padded(self._illumination.shape[-1] // 2))

    def _is_hopeless(self, centre: tuple[int, ...]) -> bool:
        return self._failures[centre] >= MOST_FAILURES

    def _candidates(self) -> Candidates:
        farthest_px = FARTHEST_DIAMETERS * self._diameter_px
        if self._places is not None:
            return Candidates(self._area, self._places, farthest_px)
        spacing_px = max(SPACING_DIAMETERS * self._diameter_px, 2.0)
        return Lattice(self._area, spacing_px, np.random.default_rng(self.aims.seed), farthest_px)

    def _planned_survey(self) -> Corners:
        rng, step_px = np.random.default_rng(self.aims.seed), SURVEY_DIAMETERS * self._diameter_px
        centres = survey(self._area, step_px, rng)
        if self._places is not None:
            nearest = cKDTree(self._places).query(centres)[1]
            centres = self._places[list(dict.fromkeys(nearest.tolist()))]
        return centres[self._inside_region(centres[None])[0] > 0]

    def _promise(self, centres: Corners) -> Promise:
        """Return what measuring at `centres` is expected to bring."""
        is_lit = np.zeros(self.maps.cells.shape, bool)
        is_lit.flat[self.maps.cell_of(centres)] = True
        return Promise(
            n_frames=self.n_measured + len(centres),
            weights=self._weights,
            before=self._uncertainty,
            predicted=predicted_gain(self.maps, self._weights, self._illumination, centres),
            is_lit=is_lit,
        )

    def _look_whether_to_stop(self) -> None:
        if self.is_surveyed and self._image is not None and self._image.version != self._judged:
            self._judged = self._image.version
            self._stop.look(self.quality, is_trusted(calibration(self._image)))

    def _inside_region(self, centres: Corners) -> NDArray[np.float32]:
        return self._inside(self._region, centres)

    def _inside(self, region: Limits | None, centres: Corners) -> NDArray[np.float32]:
        if region is None:
            return np.ones(centres.shape[:2], np.float32)
        area = self.aims.axes.area(region)
        inside = (centres >= area.origin) & (centres < (area.bottom, area.right))
        return inside.all(axis=-1).astype(np.float32)

    def _worth_repairing(self, lost: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the lost frames in the region; none while the image, the newest first, is behind."""
        image = self._image
        if image and image.counts.get("recorded", 0) - image.frames_seen > REPAIR_LAG:
            return []
        return [centre for centre in lost if self._inside_region(np.array([[centre]]))[0, 0] > 0]

    def _hash(self, weights: NDArray[np.float32]) -> str:
        digest = self._digest.copy()
        digest.update(weights.tobytes())
        return digest.hexdigest()[:16]

    def _remedies(self) -> str:
        """Return what the places that matter need to reach the target: photons and computing differ."""
        verdict = verdicts(self.maps, self.aims.target_rad)[(self._weights >= RELEVANT) & self._field]
        shares = {remedy.name.lower(): 100 * np.mean(verdict == remedy) for remedy in Verdict}
        return "of what matters " + ", ".join(f"{share:.0f} % {name}" for name, share in shares.items())

    def _reasons(self, chosen: Selection, n_repaired: int) -> tuple[str, ...]:
        reasons = []
        if not self.is_surveyed:
            reasons.append("survey: the field has not been seen everywhere")
        elif not is_trusted(within := calibration(self._image)):
            found, least = (f"{100 * share:.0f} %" for share in (within or 0, LEAST_68))
            reasons.append(f"even: only {found} of errors are below sigma, not {least}")
        elif self.audit.is_distrusted:
            reasons.append("even: the last batches brought less than was predicted")
        elif self.is_even:
            share = self.quality.relevant_fraction
            reasons.append(f"even: {100 * share:.0f} % of the field matters, a plain scan does as well")
        else:
            reasons.append(f"importance: {100 * self.quality.relevant_fraction:.0f} % of the field matters")
        if self.is_surveyed and self.aims.target_rad > 0:
            reasons.append(self._remedies())
        if n_repaired:
            reasons.append(f"repair: {n_repaired} lost frames")
        if n_abandoned := int((self.audit.is_abandoned & (self._weights >= RELEVANT) & self._field).sum()):
            reasons.append(f"abandoned: {n_abandoned} squares that matter do not improve")
        if chosen.n_closure:
            reasons.append(f"closure: {chosen.n_closure} holes in refined ground")
        if not len(chosen):
            reasons.append("nothing left: every candidate is measured or has its dose")
        return tuple(reasons)


def _far_from(points: Corners, others: Corners, radius_px: float) -> Corners:
    if not len(points) or not len(others):
        return points
    return points[cKDTree(others).query(points)[0] > radius_px]
