from dataclasses import replace

import numpy as np
import pytest

from operators.geometry import Bounds
from operators.mosaic.error_bars import ErrorModel
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import stitch
from stream.live.tile_store import TileStore
from stream.record.calibration import read_calibration
from stream.stages.stitching.composition import Refined
from stream.stages.stitching.error_bars import SETTLED_VISITS, Calibration, CalibrationRecord
from tests.helpers.stream.scans import Sample, make_scan, snapshot_of

ERROR = 0.1  # rad, of every patch


@pytest.fixture(scope="module")
def scanned():
    return Sample(n_side=14)


class Bench:
    """A mosaic whose patches are wrong by a known amount, and the truth as refined."""

    def __init__(self, folder, scanned, claimed):
        rng = np.random.default_rng(0)
        wrong = np.exp(1j * rng.normal(0, ERROR, scanned.patches.shape)).astype(np.complex64)
        sigma = np.full(scanned.patches.shape, claimed, np.float32)
        self.mosaic = stitch(scanned.patches * wrong, sigma, scanned.illumination, scanned.corners)
        bounds = self.mosaic.bounds
        truth = np.ones(bounds.shape, np.complex64)
        top, left = scanned.origin - bounds.origin
        rows, columns = scanned.truth.shape
        truth[top : top + rows, left : left + columns] = scanned.truth
        photons = self.mosaic.picture(bounds).photons + np.float32(1)
        self.refined = Refined.of(snapshot_of(truth, bounds, illumination=photons), self.mosaic, None)
        self.scan = make_scan(folder)
        self.scan.counters("subscriber", writable=True)["head"] = len(scanned)
        self.visits = self.scan.column("visits", writable=True)
        self.tiles = TileStore(32)
        self.calibration = Calibration(self.scan, self.tiles)
        for number, corner in enumerate(scanned.corners):
            window = Bounds.of_windows(corner[None], 16)
            self.calibration.place(number, self.tiles.touched_by(window))

    def look(self):
        self.calibration.look(self.mosaic, self.refined, self.refined.joint(self.mosaic))
        return self.calibration.record


def test_nothing_is_said_before_there_is_refined_ground(tmp_path, scanned):
    bench = Bench(tmp_path, scanned, ERROR)
    assert bench.look() == CalibrationRecord()
    bench.visits.write(np.arange(len(scanned)), SETTLED_VISITS - 1)
    assert bench.look() == CalibrationRecord()


def test_a_tile_waits_for_all_frames_that_touch_it_and_counts_once(tmp_path, scanned):
    bench = Bench(tmp_path, scanned, ERROR)
    upper = np.flatnonzero(scanned.corners[:, 0] < 34)  # all that touch the tiles above row 32
    bench.visits.write(upper, SETTLED_VISITS)
    some = bench.look().n_calibrated
    assert bench.look().n_calibrated == some > 0
    bench.visits.write(np.arange(len(scanned)), SETTLED_VISITS)
    assert bench.look().n_calibrated > some


def test_a_tile_that_is_withheld_when_it_has_settled_is_judged_once_it_is_shown(tmp_path, scanned):
    bench = Bench(tmp_path, scanned, ERROR)
    bench.visits.write(np.arange(len(scanned)), SETTLED_VISITS)
    shown, withheld = bench.refined, np.zeros_like(bench.refined.withheld)
    withheld[: withheld.shape[0] // 2] = True
    bench.refined = replace(shown, withheld=withheld)
    some = bench.look().n_calibrated
    assert bench.look().n_calibrated == some > 0
    bench.refined = shown
    every = bench.look().n_calibrated
    assert every > some
    at_once = Bench(tmp_path / "at once", scanned, ERROR)
    at_once.visits.write(np.arange(len(scanned)), SETTLED_VISITS)
    assert at_once.look().n_calibrated == every
    assert bench.look().n_calibrated == every, "each tile once"


def test_bars_that_refined_ground_contradicts_are_scaled_and_an_alarm_is_raised(tmp_path, scanned):
    own = ErrorModel(photons=0.0, shared=0.0, own=1.0, overlap=0.0)
    factors = {}
    for claimed in (ERROR, ERROR / 4):
        bench = Bench(tmp_path / str(claimed), scanned, claimed)
        bench.mosaic.error_model = own
        bench.visits.write(np.arange(len(scanned)), SETTLED_VISITS)
        record = bench.look()
        factors[claimed] = record.sigma_factor
    assert factors[ERROR / 4] == pytest.approx(4 * factors[ERROR], rel=0.01)
    assert "not what the network was trained on" in record.alarm


def test_the_record_is_left_with_the_scan(tmp_path, scanned):
    bench = Bench(tmp_path, scanned, ERROR)
    assert read_calibration(bench.scan.folder) == CalibrationRecord()
    bench.visits.write(np.arange(len(scanned)), SETTLED_VISITS)
    record = bench.look()
    bench.calibration.write()
    assert read_calibration(bench.scan.folder) == record
    assert 0 <= record.coverage68 <= record.coverage95 <= 1


def test_ground_that_only_one_of_them_knows_says_nothing(tmp_path, scanned):
    bench = Bench(tmp_path, scanned, ERROR)
    bench.visits.write(np.arange(len(scanned)), SETTLED_VISITS)
    bench.mosaic = Mosaic(scanned.illumination)
    bench.calibration.look(bench.mosaic, bench.refined, None)
    assert bench.calibration.record.n_calibrated == 0


def test_a_ramp_between_the_two_pictures_is_no_error_of_either(tmp_path, scanned):
    records = []
    for slope in (0.0, 0.1):
        bench = Bench(tmp_path / str(slope), scanned, ERROR)
        ramp = np.exp(1j * slope * np.indices(bench.refined.bounds.shape)[0]).astype(np.complex64)
        bench.refined = replace(bench.refined, object=bench.refined.object * ramp)
        bench.visits.write(np.arange(len(scanned)), SETTLED_VISITS)
        records.append(bench.look())
    level, ramped = records
    assert ramped.n_calibrated == level.n_calibrated > 0
    assert ramped.sigma_factor == pytest.approx(level.sigma_factor, rel=0.02)
    assert not ramped.alarm
