import json

import numpy as np
import pytest

from launch.page.scans import scan_list
from launch.page.scans.records import NotThereError, ScanRecords
from launch.page.scans.scan_list import ScanList, final_image
from stream.record.handover import hand_over
from tests.helpers.launch.saved_scans import SavedScans, decode_arrays
from tests.helpers.stream.live_images import decode_picture


@pytest.fixture
def saved(tmp_path):
    return SavedScans(tmp_path)


def list_of(saved):
    return ScanList(ScanRecords(saved.save, saved.run.run_id))


def test_scans_are_listed_newest_first_with_what_became_of_them(saved):
    saved.whole("0000-a")
    saved.whole("0001-b", incomplete="lost: 1 frames (7)")
    running = saved.begin("0002-c")
    saved.record(running, saved.numbers[:5])
    listed = list_of(saved).page("", 24)
    assert [(line["scan"], line["state"], line["n_recorded"]) for line in listed["scans"]] == [
        ("0002-c", "running", 5),
        ("0001-b", "incomplete", 36),
        ("0000-a", "complete", 36),
    ]
    assert [line["has_image"] for line in listed["scans"]] == [False, True, True]
    assert listed["scans"][1]["note"] == "lost: 1 frames (7)"
    assert (listed["n_scans"], listed["n_older"]) == (3, 0)


def test_a_scan_that_made_way_for_the_running_one_is_finishing_until_it_has_its_result(saved):
    scan = saved.begin("0000-a")
    saved.record(scan, saved.numbers)
    hand_over(scan, "refinement")
    saved.begin("0001-b")
    lines = list_of(saved).page("", 24)["scans"]
    assert [(line["state"], line["note"]) for line in lines] == [("running", ""), ("finishing", "")]
    (left,) = ScanList(ScanRecords(saved.save, "another run")).page("0001-b", 24)["scans"]
    assert left["state"] == "incomplete"
    assert "a run into the same folder goes on with it" in left["note"]


def test_a_scan_of_a_run_that_is_over_and_left_no_result_is_incomplete(saved):
    saved.record(saved.begin("0000-a"), saved.numbers[:5])
    listed = ScanList(ScanRecords(saved.save, "another run")).page("", 24)
    assert listed["scans"][0]["state"] == "incomplete"
    assert listed["scans"][0]["note"] == "its run ended without a result"


def test_of_many_scans_only_those_shown_are_looked_at(saved, monkeypatch):
    for number in range(30):
        saved.begin(f"{number:04d}-s")
    described = []
    monkeypatch.setattr(scan_list, "_described", lambda record: described.append(record.scan.name) or {})
    scans = list_of(saved)
    assert (scans.page("", 5)["n_scans"], len(described)) == (30, 5)
    described.clear()
    assert scans.page("0025-s", 3)["n_older"] == 22
    assert described == ["0024-s", "0023-s", "0022-s"]
    assert len(scans.page("", 1000)["scans"]) == 30


def test_what_is_over_is_read_once(saved, monkeypatch):
    saved.whole()
    scans = list_of(saved)
    first = scans.page("", 24), scans.thumbnail("0000-a")
    for name in ("_described", "final_image"):
        monkeypatch.setattr(scan_list, name, lambda *_: pytest.fail("read again"))
    assert (scans.page("", 24), scans.thumbnail("0000-a")) == first


def test_the_final_image_is_on_the_pixels_of_the_live_one(saved):
    saved.whole()
    header, path, maps = decode_picture(list_of(saved).picture("0000-a"))
    assert (header["scan"], header["shape"]) == ("0000-a", list(saved.sample.truth.shape))
    assert header["origin_px"] == saved.sample.origin.tolist()
    np.testing.assert_allclose(path, saved.sample.corners - saved.sample.origin + 8, atol=1e-3)
    lit = maps["source"] > 0
    values = np.abs(saved.sample.truth)[lit]
    levels = maps["amplitude"][lit].astype(float)
    assert np.corrcoef(values, levels)[0, 1] > 0.98


def test_without_a_result_the_last_refined_image_is_shown_and_without_that_none(saved):
    scan = saved.begin()
    with pytest.raises(NotThereError, match="no image of 0000-a"):
        list_of(saved).picture("0000-a")
    saved.record(scan, saved.numbers)
    saved.refine(scan, saved.numbers)
    image = final_image(ScanRecords(saved.save).open("0000-a"))
    np.testing.assert_array_equal(image.object[image.coverage], saved.sample.truth[image.coverage])


def test_a_thumbnail_is_small_and_of_the_phase(saved, monkeypatch):
    monkeypatch.setattr(scan_list, "THUMBNAIL_PX", 20)
    saved.whole()
    header, arrays = decode_arrays(list_of(saved).thumbnail("0000-a"))
    assert max(arrays["phase"].shape) <= 20
    assert header["low"] < np.nanmedian(arrays["phase"]) < header["high"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../0000-a", "../../etc", "/etc", "0000-a/columns", "0001-x"]
)
def test_a_name_cannot_leave_the_folder(saved, name):
    saved.whole()
    (saved.save / "scan.json").write_bytes((saved.save / "scans/0000-a/scan.json").read_bytes())
    with pytest.raises(NotThereError):
        ScanRecords(saved.save).read(name)


def test_a_scan_that_cannot_be_read_stands_in_the_list_as_such(saved):
    saved.whole()
    broken = saved.save / "scans" / "0001-b" / "scan.json"
    broken.parent.mkdir()
    broken.write_text(json.dumps({"series_id": "?"}))
    states = [line["state"] for line in list_of(saved).page("", 24)["scans"]]
    assert states == ["unreadable", "complete"]
