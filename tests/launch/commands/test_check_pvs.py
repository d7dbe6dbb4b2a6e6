"""`check` says of PVs whether they are there, what they hold, and why they are not searched for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from p4p import Value
from p4p.nt import NTScalar
from p4p.server.raw import SharedPV

from launch.commands.check import check
from stream.detector.pva.ntndarray import encode_array
from tests.helpers.launch.runs import make_config
from tests.helpers.stream.pva import new_pv, own_network, served

FRAME = np.arange(64 * 80, dtype="<u2").reshape(64, 80)


@pytest.fixture(autouse=True)
def _has_a_network_of_its_own() -> Iterator[None]:
    with own_network():
        yield


def said(save: Path, timeout_s: float = 20.0, **sections: Any) -> dict[str, list[tuple[str, str]]]:
    np.savetxt(save / "positions.csv", [[0, 0], [0, 1], [1, 0], [1, 1]], delimiter=",")
    own: dict[str, Any] = {
        "detector": {"format": "pva", "pv": "T:IMAGE", "silence_s": 5.0},
        "positions": {"source": "file", "path": str(save / "positions.csv"), "unit": "um"},
        "refinement": {"device": "numpy"},
        "live": {"address": "tcp://127.0.0.1:*"},
        "viewer": {"port": 0},
    }
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in check(make_config(save, **own | sections), timeout_s):
        found.setdefault(finding.what, []).append((finding.result, finding.detail))
    return found


def test_what_the_pv_of_a_detector_holds_is_looked_at(tmp_path: Path) -> None:
    positions = {"source": "pva", "pvs": ["T:Y", "T:X"], "unit": "um"}
    array = SharedPV(initial=Value(NTScalar.buildType("ad"), {"value": np.empty(0)}))
    with served({"T:IMAGE": new_pv(**encode_array(FRAME, 7, 0.0, "bslz4")), "T:Y": array, "T:X": array}):
        found = said(tmp_path, positions=positions)
    assert found["detector"] == [
        ("OK", "PV T:IMAGE is waited for"),
        ("OK", "PV T:IMAGE holds image 7: 64 x 80 pixels, <u2, at most 5119 counts"),
    ]
    assert ("OK", "PV T:Y is there, epics:nt/NTScalarArray:1.0") in found["positions"]


def test_a_pv_without_an_image_yet_is_fine(tmp_path: Path) -> None:
    with served({"T:IMAGE": new_pv()}):
        assert said(tmp_path)["detector"][1] == ("OK", "PV T:IMAGE is there and has had no image yet")


def test_a_pv_that_is_none_of_a_detector_is_an_error(tmp_path: Path) -> None:
    with served({"T:IMAGE": SharedPV(initial=Value(NTScalar.buildType("d"), {"value": 1.0}))}):
        (_, (result, detail)) = said(tmp_path)["detector"]
    assert result == "ERROR"
    assert "is no NTNDArray" in detail


def test_a_pv_that_does_not_answer_is_named(tmp_path: Path) -> None:
    assert said(tmp_path, 0.1)["detector"][1] == ("TIMEOUT", "no PV T:IMAGE has answered in 0.1 s")


def test_pvs_of_other_computers_have_to_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPICS_PVA_ADDR_LIST", "10.1.1.255")
    result, detail = said(tmp_path, 0.1)["detector"][0]
    assert result == "ERROR"
    assert "say `insecure: true`" in detail


def test_a_prefix_that_another_run_has_is_told_of(tmp_path: Path) -> None:
    status = SharedPV(initial=Value(NTScalar.buildType("s"), {"value": "live"}))
    pvs = {"enabled": True, "prefix": "T:"}
    with served({"T:Status": status}):
        _, (result, detail) = said(tmp_path, 0.1, pva=pvs)["pvs"]
    assert (result, detail.partition(":")[0]) == ("WARNING", "there is a PV T")
    assert len(said(tmp_path, 0.1, pva=pvs)["pvs"]) == 1
