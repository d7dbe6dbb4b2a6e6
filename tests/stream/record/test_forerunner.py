"""Which earlier scan a scan starts from: decided once, and kept as it was then."""

import logging
import shutil

import msgspec
import numpy as np

from operators.geometry import Bounds
from stream.record.forerunner import FOLDER, forerunner_of, take_forerunner
from stream.record.scan import Scan, ScanHeader
from stream.record.snapshot import write_snapshot
from tests.helpers.stream.scans import N_PIXELS, snapshot_of

GROUND = Bounds(0, 0, 20, 20)


def begun(scans, name, **header):
    header = {"run_id": "r", "frame_shape": (16, 16), "frame_dtype": "<u2", "started_s": 0.0} | header
    return Scan.create(scans / name, ScanHeader(series_id=1, series_uid=name, **header))


def refine(scan, value, **changes):
    """Leave an object of this value as the newest of the scan."""
    write_snapshot(scan.folder, snapshot_of(np.full(GROUND.shape, value, np.complex64), GROUND, **changes))


def refined(scans, name, value=1.0, **header):
    scan = begun(scans, name, **header)
    refine(scan, value)
    return scan


def taken(scan, **told):
    earlier = take_forerunner(Scan(scan.folder), N_PIXELS, with_object=True, **told)
    return None if earlier is None else (earlier.scan, float(earlier.snapshot.object[0, 0].real))


def test_a_scan_starts_from_the_newest_refined_one_before_it(tmp_path):
    refined(tmp_path, "0000-a", 1.0)
    refined(tmp_path, "0001-b", 2.0)
    begun(tmp_path, "0002-not-refined")
    refine(begun(tmp_path, "0003-less-than-an-epoch"), 3.0, n_updates=3)
    refine(begun(tmp_path, "0004-not-finite"), np.nan)
    refine(begun(tmp_path, "0004-in-the-dark"), 4.0, error=0.97)
    scan = begun(tmp_path, "0005-c")
    refined(tmp_path, "0006-later", 6.0)
    assert taken(scan) == ("0001-b", 2.0)
    assert forerunner_of(scan) == "0001-b"


def test_the_first_scan_of_a_run_starts_from_none(tmp_path):
    refined(tmp_path, "0000-a", run_id="yesterday")
    begun(tmp_path, "0001-not-refined")
    scan = begun(tmp_path, "0002-b")
    assert taken(scan) is None
    assert forerunner_of(scan) == ""


def test_what_was_decided_stays_whatever_becomes_of_the_earlier_scan(tmp_path):
    earlier = refined(tmp_path, "0000-a", 1.0)
    scan = begun(tmp_path, "0001-b")
    assert taken(scan) == ("0000-a", 1.0)
    refine(earlier, 9.0)
    assert taken(scan) == ("0000-a", 1.0)
    shutil.rmtree(earlier.folder)
    assert taken(scan) == ("0000-a", 1.0)


def test_the_probe_alone_takes_no_room_for_the_object(tmp_path):
    refined(tmp_path, "0000-a", 1.0)
    scan = begun(tmp_path, "0001-b")
    for _ in range(2):
        earlier = take_forerunner(Scan(scan.folder), N_PIXELS, with_object=False)
        assert (earlier.scan, earlier.snapshot, earlier.probe.shape) == ("0000-a", None, (1, 16, 16))
    assert sorted(path.name for path in (scan.folder / FOLDER).iterdir()) == ["probe.npy", "scan"]


def test_that_there_was_none_stays_too(tmp_path):
    earlier, scan = begun(tmp_path, "0000-a"), begun(tmp_path, "0001-b")
    assert taken(scan) is None
    refine(earlier, 1.0)
    assert taken(scan) is None


def test_who_can_still_wait_may_ask_again(tmp_path):
    earlier, scan = begun(tmp_path, "0000-a"), begun(tmp_path, "0001-b")
    assert taken(scan, is_final=False) is None
    refine(earlier, 1.0)
    assert taken(scan, is_final=False) == ("0000-a", 1.0)
    refine(earlier, 2.0)
    assert taken(scan) == ("0000-a", 1.0)


def test_two_stages_that_ask_at_once_get_the_same(tmp_path, monkeypatch):
    earlier = refined(tmp_path, "0000-a", 1.0)
    scan = begun(tmp_path, "0001-b")

    def write_and_be_overtaken(folder, snapshot):
        monkeypatch.undo()
        refine(earlier, 2.0)
        assert taken(scan) == ("0000-a", 2.0)
        write_snapshot(folder, snapshot)

    monkeypatch.setattr("stream.record.forerunner.write_snapshot", write_and_be_overtaken)
    assert taken(scan) == ("0000-a", 2.0)
    assert [path.name for path in scan.folder.iterdir() if path.name.startswith(FOLDER)] == [FOLDER]


def test_scans_of_another_energy_have_other_pixels_and_are_passed_over(tmp_path, caplog):
    refined(tmp_path, "0000-a", 1.0)
    second = begun(tmp_path, "0001-b", energy_ev=9000.0)
    assert taken(second) == ("0000-a", 1.0), "an energy that nobody announced is the configured one"
    refine(second, 2.0)
    assert taken(begun(tmp_path, "0002-c", energy_ev=9010.0)) == ("0001-b", 2.0), "less than half a pixel off"
    assert taken(begun(tmp_path, "0003-d", energy_ev=9900.0)) == ("0000-a", 1.0)


def test_that_an_energy_is_in_the_way_is_said(tmp_path, caplog):
    refined(tmp_path, "0000-a", energy_ev=9000.0)
    with caplog.at_level(logging.WARNING):
        assert taken(begun(tmp_path, "0001-b", energy_ev=9900.0)) is None
    assert caplog.messages == [
        "0001-b starts from no earlier scan: 9900 eV, 0000-a had 9000 eV, and object pixels follow the energy"
    ]


def test_scans_of_versions_that_did_not_note_the_energy_are_read(tmp_path):
    scan = begun(tmp_path, "0000-a")
    header = msgspec.json.decode((scan.folder / "scan.json").read_bytes())
    del header["energy_ev"]
    (scan.folder / "scan.json").write_bytes(msgspec.json.encode(header))
    assert Scan(scan.folder).header.energy_ev == 0.0
