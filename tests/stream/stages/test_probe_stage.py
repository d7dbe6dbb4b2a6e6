import numpy as np
import pytest

import stream.stages.probe
from stream.record.probe import found_probe, publish_probe
from stream.record.scan import Scan, State
from stream.stages.config import ProbeConfig
from stream.stages.inputs import Optics
from stream.stages.loop import WorkerLoop
from stream.stages.probe import ProbeFinder
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import (
    DETECTOR_PLANE,
    N_PIXELS,
    Sample,
    close,
    make_scan,
    place,
    record,
    states,
)

N_FRAMES = 60


@pytest.fixture(scope="module")
def scanned():
    return Sample(n_side=8)


class Search:
    """Stands in for the search, which takes seconds and has its own tests: finds from enough frames."""

    def __init__(self, enough=0):
        self.enough, self.calls = enough, []

    def __call__(self, patterns, positions_px, **options):
        self.calls.append((len(patterns), options))
        if len(patterns) < self.enough:
            raise ValueError("no curvature explains the data")
        return np.full((1, N_PIXELS, N_PIXELS), len(patterns), np.complex64)


class Bench:
    def __init__(self, folder, scanned, search, monkeypatch, **told):
        monkeypatch.setattr(stream.stages.probe, "probe_from_burst", search)
        self.scanned, self.scans = scanned, folder / "scans"
        self.scan = make_scan(self.scans)
        self.told = {"guess": None, "transmission": 1.0, "threads": 1, **told}
        self.restart()

    def restart(self):
        stage = ProbeFinder(ProbeConfig(n_frames=24), Optics(DETECTOR_PLANE), **self.told)
        self.loop = WorkerLoop(stage, self.scans, Clock())

    def comes(self, *numbers):
        record(self.scan, np.array(numbers))
        place(self.scan, np.array(numbers), self.scanned.corners[list(numbers)])
        self.loop.turn()
        self.loop.turn()

    def ends(self):
        close(self.scan, "subscriber", "positions")
        self.loop.turn()

    @property
    def found(self):
        return found_probe(Scan(self.scan.folder))


@pytest.fixture
def make_bench(tmp_path, scanned, monkeypatch):
    return lambda search, **told: Bench(tmp_path, scanned, search, monkeypatch, **told)


def test_the_probe_is_found_from_the_first_frames_and_only_once(make_bench):
    search = Search()
    bench = make_bench(search, transmission=0.75)
    bench.comes(*range(10))
    assert bench.found is None
    bench.comes(*range(10, 40))
    assert bench.found[0, 0, 0] == 24
    bench.comes(*range(40, N_FRAMES))
    bench.ends()
    assert [n for n, _ in search.calls] == [24]
    assert search.calls[0][1]["transmission"] == 0.75
    assert (states(bench.scan, "probe") == State.DONE).all()
    assert Scan(bench.scan.folder).count("probe", "closed") == 1


def test_when_the_first_frames_do_not_tell_more_are_tried_and_in_the_end_all(make_bench):
    search = Search(enough=56)
    bench = make_bench(search)
    for start in range(0, N_FRAMES, 3):
        bench.comes(*range(start, start + 3))
    assert bench.found is None
    bench.ends()
    assert [n for n, _ in search.calls] == [24, 48, 60]
    assert bench.found[0, 0, 0] == 60


def test_a_scan_that_never_tells_closes_without_a_probe(make_bench):
    bench = make_bench(Search(enough=200))
    bench.comes(*range(28))
    bench.ends()
    assert bench.found is None
    assert Scan(bench.scan.folder).count("probe", "closed") == 1


def test_how_far_the_search_is_can_be_read_while_it_goes_on(make_bench):
    read = []

    class Telling(Search):
        def __call__(self, patterns, positions_px, *, on_step, **options):
            on_step(3, 80)
            scan = Scan(bench.scan.folder)
            read.append([scan.count("probe", name) for name in ("wanted", "step", "steps")])
            return super().__call__(patterns, positions_px, **options)

    bench = make_bench(Telling(enough=48))
    for start in range(0, N_FRAMES, 3):
        bench.comes(*range(start, start + 3))
    assert read == [[24, 4, 80], [48, 4, 80]]
    assert bench.found is not None


def test_a_restart_counts_the_frames_seen_before(make_bench):
    search = Search()
    bench = make_bench(search)
    bench.comes(*range(16))
    bench.restart()
    bench.comes(*range(16, 26))
    assert [n for n, _ in search.calls] == [24]
    bench.restart()
    bench.comes(26)
    assert len(search.calls) == 1, "it is there"


def test_a_guess_is_corrected_and_its_power_is_believed(make_bench, scanned, tmp_path):
    optics = scanned.optics(tmp_path)
    search = Search()
    make_bench(search, guess=optics.probe).comes(*range(24))
    options = search.calls[0][1]
    np.testing.assert_array_equal(options["guess"], scanned.probe.astype(np.complex64))
    assert options["photons"] == pytest.approx(float(scanned.illumination.sum()), rel=1e-5)


def test_a_newer_probe_is_what_readers_find(tmp_path):
    scan = make_scan(tmp_path)
    assert found_probe(scan) is None
    for version in (1, 2):
        assert publish_probe(scan, np.full((1, 4, 4), version, np.complex64)) == version
        assert found_probe(Scan(scan.folder))[0, 0, 0] == version
