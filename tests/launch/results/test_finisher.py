"""Scans that were handed over: brought to the same end, in their order, whatever dies on the way."""

import itertools
import json
import logging
from functools import partial

import numpy as np
import pytest

from launch.results import halves
from launch.results.finisher import LOOK_S, Finisher
from launch.results.halves import LEFT, OVERTAKEN, LeftMeasurements, awaits_measuring, unmeasured
from launch.results.summary import write_summary
from operators.metrics.errors import nrmse
from operators.optics.forward import intensities
from stream.record.account import incompleteness
from stream.record.calibration import read_calibration
from stream.record.error_curve import read_error_curve
from stream.record.handover import awaits_finishing, hand_over
from stream.record.scan import Scan, State
from stream.record.snapshot import read_snapshot
from stream.stages.config import LiveConfig, RefinementConfig
from stream.stages.inputs import ImageOrigin
from stream.stages.link import StageContext
from stream.stages.loop import WorkerLoop
from stream.stages.refinement.worker import Refinement
from stream.stages.stitching.worker import Stitcher
from tests.helpers.stream.scans import N_PIXELS, Sample, close, infer, make_scan, place, record
from tests.helpers.stream.workers import Steps

N, EPOCHS = 36, 16
WRONG = np.exp(0.4j * np.sin(2 * np.pi * np.arange(N_PIXELS) / N_PIXELS)).astype(np.complex64)  # of patches
INPUTS = ("subscriber", "positions", "inference")


class Ticking:
    """A clock that goes on by ten milliseconds whenever it is asked: work of a known length."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def __call__(self) -> float:
        return 0.01 * next(self._ticks)


class Bench:
    """Scans of one sample in a folder, and the stages that reconstruct them."""

    def __init__(self, folder, **settings) -> None:
        self.folder, self.scanned = folder, Sample()
        folder.mkdir(exist_ok=True)
        self.context = StageContext(scans=folder / "scans", rendezvous=folder, run_id="run-7")
        self.config = RefinementConfig(
            **{"epochs": EPOCHS, "first_frames": 4, "publish_s": 0.05, "device": "numpy"} | settings
        )

    def scan(self, name) -> Scan:
        """A scan of which all frames, positions and patches are there."""
        scan, numbers = make_scan(self.context.scans, name), np.arange(N)
        patterns = np.random.default_rng(0).poisson(intensities(self.scanned.probe, self.scanned.patches))
        record(scan, numbers, np.fft.fftshift(patterns, axes=(1, 2)).astype("<u2"))
        place(scan, numbers, self.scanned.corners)
        infer(scan, numbers, self.scanned.patches * WRONG)
        close(scan, *INPUTS)
        return scan

    def stages(self, run_id="run-7"):
        optics, clock = self.scanned.optics(self.folder), Ticking()
        origin = ImageOrigin(optics=optics, uses_network=True, uses_refinement=True, run_id=run_id)
        stages = {"n_modes": 1, "scale_probe": True, "uses_network": True, "starts_over": False}
        return [
            Refinement(self.config, optics, clock=clock, **stages),
            Stitcher(LiveConfig(tile_px=16), origin, clock=clock),
        ]

    def finisher(self, **told):
        makers = {stage.name: lambda stage=stage: stage for stage in self.stages()}
        measurements = LeftMeasurements(self.context.scans, self.folder / "results", 60.0, Ticking())
        given = {"order": "oldest", "stages_of": lambda run_id: makers, "clock": Ticking()}
        return Finisher(self.context, measurements=measurements, **given | told)

    def result(self, scan):
        """Says what the scan came to, after it was closed by all."""
        assert not incompleteness(scan)
        snapshot = read_snapshot(scan.folder)
        (top, left), (n_rows, n_columns) = snapshot.bounds.origin - self.scanned.origin, snapshot.object.shape
        truth = self.scanned.truth[top : top + n_rows, left : left + n_columns]
        lit = snapshot.illumination > 0.2 * snapshot.illumination.max()
        return snapshot, nrmse(snapshot.object, truth, lit).c, lit


def live(bench, until=lambda: False, n=4000):
    """Lets the live stages take turns until something has come or there is nothing to do."""
    loops = [WorkerLoop(stage, bench.context.scans, Ticking()) for stage in bench.stages()]
    for _ in range(n):
        for loop in loops:
            loop.turn()
        if until():
            return loops
    return loops


def go_on(loops, n=8):
    for _ in range(n):
        for loop in loops:
            loop.turn()


def scanned(scans, name, **fields):
    """Returns a scan of which no more frames come."""
    scan = make_scan(scans, name, **fields)
    close(scan, "subscriber", "positions")
    return scan


def finish(finisher, scan, n=4000):
    for _ in range(n):
        if not awaits_finishing(scan):
            return
        finisher.turn()
    raise AssertionError("it is not finished")


def handed_over(bench, epochs):
    """Returns a scan that was handed over at about so many epochs."""
    scan = bench.scan("0000-a")
    loops = live(bench, lambda: scan.count("refinement", "epochs_milli") >= 1000 * epochs)
    make_scan(bench.context.scans, "0001-b")
    go_on(loops)
    assert awaits_finishing(scan)
    return scan


def undisturbed(folder, **settings):
    """Returns a scan that the live stages have closed themselves, and its result."""
    bench = Bench(folder, **settings)
    scan = bench.scan("0000-a")
    live(bench, lambda: bool(scan.count("stitcher", "closed")))
    return scan, *bench.result(scan)


@pytest.mark.parametrize(
    "settings",
    [{"probe_step": 0, "algorithm": "epie"}, {}, {"refines_positions": True, "positions_start": 2}],
    ids=["probe known", "probe refined", "positions refined"],
)
def test_a_scan_that_was_handed_over_comes_to_the_end_of_one_that_was_not(tmp_path, settings):
    alone, first, error, lit = undisturbed(tmp_path / "alone", **settings)
    _, in_another_order, _, _ = undisturbed(tmp_path / "another", seed=1, **settings)
    bench = Bench(tmp_path / "handed over", **settings)
    scan = handed_over(bench, epochs=6)
    finisher = bench.finisher()
    for _ in range(6):
        finisher.turn()
    finish(bench.finisher(), scan)  # the one before was killed

    second, second_error, _ = bench.result(scan)
    assert first.epoch - 4 < second.epoch < first.epoch + 1, "where it ended, or before it led away"
    assert second_error < 1.05 * error
    by_order = nrmse(in_another_order.object, first.object, lit).c
    assert nrmse(second.object, first.object, lit).c < 2.5 * by_order, "as frames visited in another order do"
    assert (np.diff(read_error_curve(scan.folder)["epoch"]) > 0).all(), "one curve, without a step back"
    calibrated, as_alone = (read_calibration(each.folder) for each in (scan, alone))
    assert calibrated.n_calibrated >= as_alone.n_calibrated, "judged by the final object"
    assert (scan.column("mosaicked_s").read(np.arange(N)) > 0).all()


def test_what_is_handed_over_before_it_was_refined_is_finished_from_the_start(tmp_path):
    bench = Bench(tmp_path)
    scan = bench.scan("0000-a")
    make_scan(bench.context.scans, "0001-b")
    scan.mark("stitcher", np.arange(N), State.DONE)
    for stage in ("refinement", "stitcher"):
        hand_over(scan, stage)
    finish(bench.finisher(), scan)
    assert bench.result(scan)[0].epoch >= EPOCHS


class Closing(Steps):
    """A stage of the finisher that closes what it gets."""

    inputs = waits_for = ()

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls


@pytest.fixture
def calls():
    return []


@pytest.fixture
def queue(tmp_path, calls):
    """Three scans that were handed over, a finisher that has not begun, and what it calls."""

    def stages_of(run_id):
        if run_id == "lost":
            raise FileNotFoundError("runs/lost/run.json is missing")
        return {stage: partial(Closing, stage, calls) for stage in ("refinement", "stitcher")}

    def make(order, run_id="", **told):
        context = StageContext(scans=tmp_path / "scans", rendezvous=tmp_path, run_id=run_id)
        measurements = LeftMeasurements(context.scans, tmp_path / "results", 60.0, Ticking())
        return Finisher(context, order, stages_of, measurements, Ticking(), **told)

    for name in ("0000-a", "0001-b", "0002-c"):
        scan = scanned(tmp_path / "scans", name)
        for stage in ("refinement", "stitcher"):
            hand_over(scan, stage)
    return make


@pytest.mark.parametrize(("order", "names"), [("oldest", "abc"), ("newest", "cba")])
def test_the_oldest_or_the_newest_goes_first_and_one_is_done_before_the_next(queue, calls, order, names):
    finisher = queue(order)
    for _ in range(10):
        finisher.turn()
    assert [call.split("-")[1] for call in calls if call.startswith("close")] == [
        name for name in names for _ in range(2)
    ]
    assert finisher.turn() == LOOK_S, "nothing left"
    assert finisher.progress() == ("", {})


def test_who_is_asked_to_end_closes_what_it_has_in_hand_and_leaves_the_others(queue, calls, tmp_path):
    finisher = queue("oldest")
    finisher.turn()
    finisher.finish()
    scans = [Scan(tmp_path / "scans" / name) for name in ("0000-a", "0001-b", "0002-c")]
    assert [awaits_finishing(scan) for scan in scans] == [False, True, True]
    assert calls[-1] == "close 0000-a"


def test_a_scan_of_an_earlier_run_is_not_given_up_when_this_one_ends(queue, calls, tmp_path):
    finisher = queue("oldest", run_id="another")
    finisher.turn()
    finisher.finish()
    assert calls[-1] == "hand over 0000-a"
    assert awaits_finishing(Scan(tmp_path / "scans" / "0000-a"))


def test_scans_of_this_run_go_before_those_that_an_earlier_one_has_left(queue, calls, tmp_path):
    finisher = queue("oldest", run_id="another")
    own = scanned(tmp_path / "scans", "0003-d", run_id="another")
    for stage in ("refinement", "stitcher"):
        hand_over(own, stage)
    for _ in range(12):
        finisher.turn()
    assert calls[0] == "open 0003-d"
    assert calls[-1] == "close 0002-c"


def test_scans_of_a_run_that_cannot_be_read_are_left_and_named_once(queue, calls, tmp_path, caplog):
    lost = [scanned(tmp_path / "scans", name, run_id="lost") for name in ("0003-d", "0004-e")]
    for scan in lost:
        hand_over(scan, "stitcher")
    finisher = queue("newest", run_id="lost")
    with caplog.at_level(logging.WARNING):
        for _ in range(12):
            finisher.turn()
    (warning,) = caplog.messages
    assert warning.startswith("scans of run lost stay unfinished: runs/lost/run.json is missing")
    assert all(map(awaits_finishing, lost))
    assert len([call for call in calls if call.startswith("close")]) == 6


def test_a_scan_that_a_live_stage_is_still_on_is_not_touched(queue, calls, tmp_path):
    scan = scanned(tmp_path / "scans", "0003-d")
    hand_over(scan, "refinement")
    for _ in range(12):
        queue("newest").turn()
    assert not any("0003-d" in call for call in calls)


def test_what_an_earlier_run_left_in_the_middle_is_closed_by_the_stages_that_it_had(queue, calls, tmp_path):
    left = scanned(tmp_path / "scans", "0003-d", run_id="killed", stages=("refinement", "stitcher"))
    going_on = make_scan(tmp_path / "scans", "0004-e", run_id="killed", stages=("refinement", "stitcher"))
    scanned(tmp_path / "scans", "0005-f", run_id="now")
    finisher = queue("newest", run_id="now", live=("inference", "stitcher"))
    for _ in range(12):
        finisher.turn()
    assert not any("0003-d" in call or "0004-e" in call for call in calls), "the live stitcher may be on it"
    for scan in (left, going_on):
        hand_over(scan, "stitcher")
    for _ in range(12):
        finisher.turn()
    assert calls[-4:] == [f"{step} 0003-d" for step in ("open", "close")] * 2
    assert not any("0004-e" in call for call in calls), "frames of it may come"


class Measuring:
    """A measurement that ends when the test says so."""

    def __init__(self, scan, result_file):
        self.scan, self.result_file, self.measured, self.is_given_up = scan, result_file, None, False

    def figures(self, timeout_s=0.0):
        return self.measured

    def give_up(self):
        self.is_given_up = True


@pytest.fixture
def measurements(monkeypatch):
    """The measurements that were begun."""
    begun = []
    monkeypatch.setattr(halves, "Measurement", lambda *files: (begun.append(Measuring(*files)), begun[-1])[1])
    return begun


def recorded(folder, name):
    """Returns a scan with results, of which the recorder has left the resolution."""
    scan = scanned(folder / "scans", name)
    scan.counters("recorder", writable=True)["step"] = LEFT
    close(scan, "stitcher", "recorder")
    path = folder / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_summary(path, {"scan": name} | unmeasured(OVERTAKEN, scan.folder))
    return scan, path


def test_what_the_recorder_had_no_time_to_measure_is_measured_when_no_scan_waits(
    queue, calls, measurements, tmp_path
):
    scan, path = recorded(tmp_path, "0003-d")
    finisher = queue("oldest")
    while awaits_finishing(Scan(tmp_path / "scans" / "0002-c")):
        assert not measurements, "three scans wait to be finished"
        finisher.turn()
    for _ in range(3):
        finisher.turn()
    (measuring,) = measurements
    assert measuring.result_file == path.with_suffix(".cxi")
    assert finisher.progress() == ("0003-d", {"measuring": 1})

    late = scanned(tmp_path / "scans", "0004-e")
    for stage in ("refinement", "stitcher"):
        hand_over(late, stage)
    finisher.turn()
    assert measuring.is_given_up
    for _ in range(6):
        finisher.turn()
    assert calls[-1] == "close 0004-e"
    again = measurements[-1]
    assert again is not measuring
    again.measured = {"resolution_m": 1e-8}
    finisher.turn()
    assert json.loads(path.read_text()) == {"scan": "0003-d", "resolution_m": 1e-8}
    assert not awaits_measuring(scan)
    finisher.turn()
    assert finisher.progress() == ("", {})
    assert len(measurements) == 2


def test_a_scan_that_the_recorder_closes_while_it_is_looked_at_is_not_forgotten(
    measurements, tmp_path, monkeypatch
):
    scan, _ = recorded(tmp_path, "0000-a")
    counters = scan.counters("recorder", writable=True)
    counters["closed"] = 0
    left = LeftMeasurements(tmp_path / "scans", tmp_path / "results", 60.0, Ticking())
    look = halves.awaits_measuring
    with monkeypatch.context() as just_then:
        just_then.setattr(
            halves, "awaits_measuring", lambda scan: (look(scan), counters.__setitem__("closed", 1))[0]
        )
        left.turn()
    left.turn()
    assert len(measurements) == 1


def test_a_measurement_that_takes_too_long_is_given_up_for_good_and_says_so(measurements, tmp_path):
    scan, path = recorded(tmp_path, "0000-a")
    left = LeftMeasurements(tmp_path / "scans", tmp_path / "results", 0.1, Ticking())
    for _ in range(20):
        left.turn()
    assert measurements[0].is_given_up
    assert len(measurements) == 1
    assert "it took more than 0 s" in json.loads(path.read_text())["resolution_unknown"]
    assert not awaits_measuring(scan)


def test_who_is_asked_to_end_leaves_the_measurement_to_the_next_run(queue, measurements, tmp_path):
    for name in ("0000-a", "0001-b", "0002-c"):
        close(Scan(tmp_path / "scans" / name), "refinement", "stitcher")
    scan, _ = recorded(tmp_path, "0003-d")
    finisher = queue("oldest")
    finisher.turn()
    finisher.finish()
    assert measurements[0].is_given_up
    assert awaits_measuring(scan)
