import errno
import json

import numpy as np
import pytest

from launch.config.sections import ResultsConfig, StoreConfig
from launch.results import recorder
from launch.results.halves import LEFT, OVERTAKEN
from launch.results.recorder import Recorder
from operators.geometry import Bounds
from stream.atomic import DiskFullError
from stream.record.scan import State
from stream.record.snapshot import write_snapshot
from stream.stages.inputs import ImageOrigin, Optics
from tests.helpers.stream.scans import DETECTOR_PLANE, make_scan, place, record, snapshot_of


@pytest.fixture
def close(tmp_path, monkeypatch):
    """Closes a scan of four refined frames; returns the figures and whether each measurement was wanted."""
    measured = []

    def measure(scan, result_file, why_not):
        measured.append(not why_not())
        return {"resolution_m": 1e-8}

    monkeypatch.setattr(recorder, "measured_resolution", measure)

    def run(resolution, *, n_pending=0, has_next=False, is_ending=lambda: False):
        numbers, object_ = np.arange(4), np.exp(0.5j * np.indices((24, 24))[0]).astype(np.complex64)
        scan = make_scan(tmp_path / "scans")
        record(scan, numbers)
        place(scan, numbers, np.zeros((4, 2)))
        for stage in ("refinement", "stitcher"):
            scan.mark(stage, numbers[n_pending:], State.DONE)
        write_snapshot(scan.folder, snapshot_of(object_, Bounds(0, 0, 24, 24)))
        if has_next:
            make_scan(tmp_path / "scans", "0001-next")
        origin = ImageOrigin(optics=Optics(DETECTOR_PLANE), uses_network=False, uses_refinement=True)
        config = ResultsConfig(resolution=resolution)
        stage = Recorder(config, StoreConfig(), origin, tmp_path, is_ending=is_ending)
        stage.open(scan).close()
        figures = json.loads((tmp_path / "results" / "0000-series.json").read_text())
        assert (scan.count("recorder", "step") == LEFT) == (
            OVERTAKEN in figures.get("resolution_unknown", "")
        ), "the finisher measures what was overtaken, and nothing else"
        return figures, measured

    return run


@pytest.mark.parametrize(
    ("resolution", "circumstances", "reason"),
    [
        ("auto", {}, ""),
        ("always", {}, ""),
        ("never", {}, "results.resolution is 'never'"),
        ("auto", {"n_pending": 1}, "1 of the frames were pending"),
        ("always", {"has_next": True}, OVERTAKEN),
        ("auto", {"has_next": True, "n_pending": 1}, "1 of the frames were pending"),
        ("auto", {"has_next": True, "is_ending": lambda: True}, "the run was asked to end"),
        ("always", {"is_ending": lambda: True}, "the run was asked to end; `ptychostream reconstruct /"),
    ],
)
def test_resolution_is_measured_where_it_is_wanted_and_nothing_is_urgent_or_the_reason_is_told(
    close, resolution, circumstances, reason
):
    figures, measured = close(resolution, **circumstances)
    assert ("resolution_m" in figures) == (not reason)
    assert reason in figures.get("resolution_unknown", "")
    assert measured == [True] * (not reason)


def test_a_scan_whose_halves_would_take_long_has_no_resolution_unless_it_is_asked_for(close, monkeypatch):
    monkeypatch.setattr(recorder, "CHEAP_S", 0.0)
    figures, _ = close("auto")
    assert "resolution_m" not in figures
    assert "it would have taken about" in figures["resolution_unknown"]


def test_a_resolution_that_is_being_measured_is_given_up_when_the_run_is_asked_to_end(close):
    answers = iter([False, True])
    _, measured = close("always", is_ending=lambda: next(answers))
    assert measured == [False]


def test_what_a_full_disk_has_room_for_is_written_and_the_rest_is_said(close, monkeypatch, caplog):
    def full(path, *_):
        raise DiskFullError(errno.ENOSPC, f"no room for {path.name}", str(path.parent))

    monkeypatch.setattr(recorder, "write_cxi", full)
    figures, measured = close("always")
    assert ("picture" in figures, "result" in figures, measured) == (True, False, [])
    assert "there is no result" in figures["resolution_unknown"]
    assert "a file of 0000-series cannot be written" in caplog.text
    assert "no room for 0000-series.cxi" in caplog.text
