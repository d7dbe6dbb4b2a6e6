"""Files of positions that are written while the scan runs."""

import os

import h5py
import numpy as np
import pytest

from stream.documents.codec import DocumentError, read_documents
from stream.documents.config import PositionsConfig
from stream.documents.sources.growing import GrowingFile
from stream.record.scan import State
from stream.stages.positions import Positions
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.position_stage import TRUTH_M, Detector, N, assert_all_positions


def rows(first, stop):
    return "".join(f"{y * 1e6:.6f},{x * 1e6:.6f}\n" for y, x in TRUTH_M[first:stop])


class Beamline:
    """The stage, and the file that somebody else writes."""

    def __init__(self, scans, path, **settings):
        self.path, self.now = path, 0.0
        self.config = PositionsConfig(
            **{"source": "growing-file", "growing_path": path, "unit": "um", "late_s": 5.0} | settings
        )
        self.scans = scans
        self.stage = Positions(self.config, scans)
        self.clock_of_source()

    def clock_of_source(self):
        self.stage._source._clock = lambda: self.now

    def restart(self):
        self.close()
        self.stage = Positions(self.config, self.scans)
        self.clock_of_source()

    def close(self):
        self.stage._source.close()

    def pass_s(self, seconds=0.2):
        for _ in range(3):
            self.now += seconds / 3
            self.stage.idle(self.now)


@pytest.fixture
def beamline(scans):
    made = []

    def make(path, **settings):
        made.append(Beamline(scans, path, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def write(path, text, mode="a"):
    with path.open(mode) as file:
        file.write(text)


def test_rows_are_read_as_they_are_written_and_half_a_line_is_waited_for(beamline, scans, tmp_path):
    it = beamline(tmp_path / "positions.csv")
    detector = Detector(scans, "a")
    write(it.path, "y,x\n" + rows(0, 20) + rows(20, 21)[:5])
    it.pass_s()
    assert np.count_nonzero(detector.states() == State.DONE) == 20
    write(it.path, rows(20, 21)[5:] + rows(21, N))
    it.pass_s()
    detector.close()
    it.pass_s()
    assert_all_positions(detector)
    assert [name for name, _ in read_documents(detector.scan.folder)] == [
        *("start", "descriptor", "event_page", "event_page", "stop")
    ]


def test_the_last_row_needs_no_end_of_its_line(beamline, scans, tmp_path):
    it = beamline(tmp_path / "positions.csv")
    detector = Detector(scans, "a")
    write(it.path, "y,x\n" + rows(0, N).rstrip("\n"))
    detector.close()
    it.pass_s()
    assert np.count_nonzero(detector.states() == State.DONE) == N - 1
    it.pass_s(it.config.late_s)
    assert_all_positions(detector)


def test_a_file_that_was_there_before_is_an_earlier_scans_until_it_changes(beamline, scans, tmp_path):
    path = tmp_path / "positions.csv"
    write(path, "y,x\n" + rows(100, 140))
    it = beamline(path)
    detector = Detector(scans, "a")
    it.pass_s()
    assert not (detector.states() == State.DONE).any()
    write(path, "y,x\n" + rows(0, N), "w")
    it.pass_s()
    detector.close()
    it.pass_s()
    assert_all_positions(detector)


@pytest.mark.parametrize("pattern", ["{series}.csv", "positions.csv"])
def test_a_finished_file_is_taken_where_its_name_or_the_configuration_says_whose_it_is(
    beamline, scans, tmp_path, pattern
):
    write(tmp_path / pattern.replace("{series}", "a"), "y,x\n" + rows(0, N))
    write(tmp_path / "b.txt", "y,x\n" + rows(100, 140))
    it = beamline(tmp_path / pattern, take_existing=pattern == "positions.csv")
    detector = Detector(scans, "a")
    detector.close()
    it.pass_s()
    assert_all_positions(detector)


def test_each_scan_has_its_own_file_and_what_a_file_has_too_much_is_nobodys(beamline, scans, tmp_path):
    it = beamline(tmp_path / "scan_*.csv")
    for index in range(3):
        detector = Detector(scans, f"s{index}")
        write(tmp_path / f"scan_{index}.csv", "y,x\n" + rows(0, N) + rows(100, 103))
        it.pass_s(1.5)
        detector.close()
        it.pass_s()
        assert_all_positions(detector)
        write(tmp_path / f"scan_{index}.csv", rows(100, 140))
        it.pass_s()


def test_one_file_that_is_written_anew_for_every_scan_is_read_anew(beamline, scans, tmp_path):
    it = beamline(tmp_path / "positions.csv")
    for index in range(3):
        detector = Detector(scans, f"s{index}")
        write(it.path, f"# scan {index}\ny,x\n" + rows(0, N), "w")
        it.pass_s()
        detector.close()
        it.pass_s()
        assert_all_positions(detector)


def test_positions_without_a_series_do_not_become_those_of_the_next_one(beamline, scans, tmp_path):
    it = beamline(tmp_path / "scan_*.csv")
    write(tmp_path / "scan_0.csv", "y,x\n" + rows(100, 140))
    it.pass_s()
    for _ in range(5):
        it.pass_s(it.config.late_s)
    detector = Detector(scans, "a")
    it.pass_s()
    assert not (detector.states() == State.DONE).any()
    write(tmp_path / "scan_1.csv", "y,x\n" + rows(0, N))
    it.pass_s(3.0)
    detector.close()
    it.pass_s()
    assert_all_positions(detector)


@pytest.mark.parametrize("n_written", [N, 25])
def test_a_stage_that_dies_goes_on_in_the_same_file(beamline, scans, tmp_path, n_written):
    it = beamline(tmp_path / "positions.csv")
    detector = Detector(scans, "a")
    write(it.path, "y,x\n" + rows(0, 20))
    it.pass_s()
    write(it.path, rows(20, n_written))
    it.restart()
    it.pass_s()
    write(it.path, rows(n_written, N))
    it.pass_s()
    detector.close()
    it.pass_s()
    assert_all_positions(detector)
    assert detector.counter("duplicates") == 0
    assert sum(name == "start" for name, _ in read_documents(detector.scan.folder)) == 1


def test_rows_with_numbers_may_lack_and_change_their_order(beamline, scans, tmp_path):
    it = beamline(tmp_path / "positions.csv", numbers="frame", first_number=1)
    detector = Detector(scans, "a")
    order = np.random.default_rng(0).permutation(np.delete(np.arange(N), 7))
    text = "".join(f"{n + 1},{TRUTH_M[n, 1] * 1e6:.6f},{TRUTH_M[n, 0] * 1e6:.6f}\n" for n in order)
    write(it.path, "frame,x,y\n" + text)
    detector.close()
    it.pass_s(it.config.late_s)
    it.pass_s(it.config.late_s)
    known = np.arange(N) != 7
    assert (detector.states()[known] == State.DONE).all()
    np.testing.assert_allclose(detector.positions_m()[known], TRUTH_M[:N][known], atol=1e-12)
    assert detector.states()[7] == State.NO_POSITION


def test_what_follows_a_line_that_is_no_row_is_not_guessed(tmp_path):
    path = tmp_path / "positions.csv"
    config = PositionsConfig(source="growing-file", growing_path=path, unit="um", take_existing=True)
    write(path, "y,x\n" + rows(0, 3) + "none,1\n" + rows(4, 9))
    now = iter(range(100))
    source = GrowingFile(config, clock=lambda: next(now))
    *_, (name, page) = source.receive()
    assert (name, page["seq_num"]) == ("event_page", [1, 2, 3])
    with pytest.raises(DocumentError, match=r"csv: line 5 is 'none,1', wanted numbers; what"):
        source.receive()
    assert source.receive() == []
    source.close()


def append(file, first, stop):
    for name, values in (("entry/y", TRUTH_M[:, 0]), ("entry/all", TRUTH_M)):
        dataset = file[name]
        dataset.resize(stop, axis=0)
        dataset[first:] = values[first:stop] * 1e6
        dataset.flush()


@pytest.mark.parametrize("is_shared", [True, False], ids=["swmr", "closed in between"])
def test_datasets_are_read_while_they_grow(beamline, scans, tmp_path, is_shared):
    it = beamline(tmp_path / "positions.h5", y="/entry/y", x="/entry/all:1")
    detector = Detector(scans, "a")
    file = h5py.File(it.path, "w", libver="latest")
    file.create_dataset("entry/y", (0,), "f8", maxshape=(None,), chunks=(8,))
    file.create_dataset("entry/all", (0, 2), "f8", maxshape=(None, 2), chunks=(8, 2))
    if is_shared:
        file.swmr_mode = True
    for first in range(0, N, 10):
        append(file, first, first + 10)
        if not is_shared:
            file.close()
        it.pass_s()
        assert np.count_nonzero(detector.states() == State.DONE) == first + 10
        if not is_shared:
            file = h5py.File(it.path, "a", libver="latest")
    file.close()
    detector.close()
    it.pass_s()
    assert_all_positions(detector)


def test_a_growing_cxi_says_itself_what_its_positions_mean_and_room_made_beforehand_is_none(
    beamline, scans, tmp_path
):
    it = beamline(tmp_path / "scan.cxi", unit=None)
    detector = Detector(scans, "a")
    with h5py.File(it.path, "w", libver="latest") as file:
        translation = file.create_dataset(
            "entry_1/sample_1/geometry_1/translation", (N, 3), "f8", chunks=(8, 3), fillvalue=np.nan
        )
        file.swmr_mode = True
        for first in range(0, N, 10):
            stop = first + 10
            translation[first:stop, 0] = -TRUTH_M[first:stop, 1]
            translation[first:stop, 1] = -TRUTH_M[first:stop, 0]
            translation.flush()
            it.pass_s()
            assert np.count_nonzero(detector.states() == State.DONE) == stop
    detector.close()
    it.pass_s()
    assert_all_positions(detector)


def test_a_look_into_a_long_silent_file_costs_nothing(tmp_path, monkeypatch):
    path = tmp_path / "positions.csv"
    write(path, "y,x\n" + "1.5,2.5\n" * 100_000)
    clock = Clock(0.0)
    config = PositionsConfig(source="growing-file", growing_path=path, unit="um", take_existing=True)
    source = GrowingFile(config, clock=clock)
    n_frames = 0
    while said := source.receive():
        n_frames += sum(len(page["seq_num"]) for name, page in said if name == "event_page")
    assert n_frames == 100_000
    n_bytes, pread = [], os.pread

    def counted(*args):
        n_bytes.append(len(piece := pread(*args)))
        return piece

    monkeypatch.setattr("os.pread", counted)
    for _ in range(10):
        clock.now += 1.0
        assert not source.receive()
    assert 0 < sum(n_bytes) < 10_000
    source.close()
