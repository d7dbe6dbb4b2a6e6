"""Positions in PVs get to the frames that the PVs say, whatever updates are lost, and old ones to none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from p4p import Value
from p4p.nt import NTScalar
from p4p.server.raw import SharedPV

from stream.documents.codec import DocumentError
from stream.documents.config import PositionsConfig
from stream.documents.sources import choice
from stream.documents.sources.protocol import Said
from stream.documents.sources.pva import PvaPositions, pva_positions
from stream.record.scan import State
from stream.stages.positions import Positions
from tests.helpers.stream.position_stage import TRUTH_M, Detector, N, assert_all_positions
from tests.helpers.stream.pva import ARRAY, TABLE, HeldPv, own_network, served

AXES_UM = TRUTH_M.T * 1e6


class Pv(HeldPv):
    """A PV of positions."""

    def post_array(self, values: Any, unit: str = "") -> None:
        self.post(Value(ARRAY, {"value": np.asarray(values, float), "display.units": unit}))

    def post_table(self, frames: Any, offset_um: float = 0.0) -> None:
        y, x = AXES_UM[:, np.asarray(frames)] + offset_um
        self.post(Value(TABLE, {"value": {"frame": np.asarray(frames, "i4"), "y": y, "x": x}}))


def config(n_pvs: int = 2, **settings: Any) -> PositionsConfig:
    return PositionsConfig(source="pva", unit="um", pvs=("T:Y", "T:X")[:n_pvs], **settings)


class Bench:
    """PVs, and what comes of their updates."""

    def __init__(self, n_pvs: int = 2, **settings: Any) -> None:
        self.pvs = [Pv(f"T:{axis}") for axis in "YX"[:n_pvs]]
        self.source = PvaPositions(config(n_pvs, **settings), self.pvs)
        self.documents: list[Said] = []

    def post(self, n_y: int, n_x: int | None = None, offset_um: float = 0.0) -> None:
        """Both arrays hold so many captures of the scan."""
        for pv, values, n in zip(self.pvs, AXES_UM, (n_y, n_y if n_x is None else n_x), strict=True):
            pv.post_array(values[:n] + offset_um)
        self.look()

    def look(self) -> None:
        self.documents += self.source.receive()

    @property
    def runs(self) -> list[dict[int, list[Any]]]:
        """Of each run, the frames and their positions."""
        runs: list[dict[int, list[Any]]] = []
        for name, document in self.documents:
            if name == "start":
                runs.append({})
            if name == "event_page":
                values = zip(document["data"]["y"], document["data"]["x"], strict=True)
                runs[-1] |= dict(zip(document["seq_num"], map(list, values), strict=True))
        return runs

    @property
    def sizes(self) -> list[int]:
        return [len(run) for run in self.runs]


def test_arrays_that_grow_give_each_frame_its_position_once() -> None:
    bench = Bench()
    bench.post(0)
    for n in (1, 2, 5, 5, 40):
        bench.post(n, max(n - 1, 0))
    bench.post(40)
    assert bench.sizes == [40]
    np.testing.assert_allclose([*bench.runs[0].values()], AXES_UM[:, :40].T)
    assert [name for name, _ in bench.documents].count("stop") == 0


def test_what_the_pvs_held_before_is_of_no_run_until_it_grows() -> None:
    stale, joined = Bench(), Bench()
    for bench in (stale, joined):
        bench.post(30)
        assert bench.documents == []
    joined.post(31)
    assert joined.sizes == [31]
    stale.post(0)
    stale.post(3, offset_um=7.0)
    assert stale.sizes == [3]
    np.testing.assert_allclose(stale.runs[0][1], AXES_UM[:, 0] + 7.0)


@pytest.mark.parametrize("is_emptied", [True, False])
def test_arrays_that_begin_anew_are_another_run(is_emptied: bool) -> None:
    bench = Bench()
    bench.post(0)
    bench.post(30)
    if is_emptied:
        bench.post(0)
    bench.post(4, offset_um=9.0)
    bench.post(12, offset_um=9.0)
    assert bench.sizes == [30, 12]
    assert [name for name, _ in bench.documents].count("stop") == 1


def test_axes_are_never_of_two_scans() -> None:
    bench = Bench()
    bench.post(0)
    bench.post(30)
    bench.pvs[0].post_array(AXES_UM[0][:0])
    bench.pvs[0].post_array(AXES_UM[0][:20] + 9.0)
    bench.pvs[1].post_array(AXES_UM[1][:31])  # the last of the scan before
    bench.look()
    assert bench.sizes == [30]
    bench.pvs[1].post_array(AXES_UM[1][:0])
    bench.pvs[1].post_array(AXES_UM[1][:20] + 9.0)
    bench.look()
    assert bench.sizes == [30, 20]


def test_a_table_may_say_of_which_frame_a_row_is() -> None:
    bench = Bench(1, numbers="frame", first_number=1)
    bench.pvs[0].post(Value(TABLE, {}))
    for rows in ([1, 2, 3], [3, 4], [9, 8], [20]):
        bench.pvs[0].post_table(rows)
        bench.look()
    assert list(bench.runs[0]) == [1, 2, 3, 4, 8, 9, 20]
    np.testing.assert_allclose(bench.runs[0][9], AXES_UM[:, 9])
    bench.pvs[0].post_table([1, 2])
    bench.look()
    assert bench.sizes == [7, 2]


def test_rows_of_a_table_without_numbers_are_captures_in_order() -> None:
    bench = Bench(1, captures_per_frame=2)
    bench.pvs[0].post(Value(TABLE, {}))
    bench.pvs[0].post_table(range(7))
    bench.look()
    assert list(bench.runs[0]) == [1, 2, 3]
    assert bench.runs[0][2][0].tolist() == [2.0, 3.0]


def test_a_repeated_trajectory_is_another_run_when_its_table_begins_anew() -> None:
    bench = Bench(1, numbers="frame")
    bench.pvs[0].post_table(range(30))
    bench.pvs[0].post_table([0])
    bench.pvs[0].post_table([0, 1])
    bench.look()
    assert bench.sizes == [2]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Value(NTScalar.buildType("d"), {"value": 1.0}), "wanted an array of numbers"),
        (Value(NTScalar.buildType("as"), {"value": ["a"]}), "wanted an array of numbers"),
        (Value(NTScalar.buildType("s"), {"value": "none"}), "wanted an array of numbers"),
    ],
)
def test_what_holds_no_numbers_is_refused_in_words(value: Value, words: str) -> None:
    bench = Bench()
    bench.pvs[0].post(value)
    with pytest.raises(DocumentError, match=words):
        bench.look()


@pytest.mark.parametrize(
    ("frames", "words"), [([-3], "-4.0: wanted whole numbers"), ([2**31 - 1], "wanted whole numbers")]
)
def test_wild_frame_numbers_are_refused(frames: Sequence[int], words: str) -> None:
    bench = Bench(1, numbers="frame", first_number=1)
    row = {"frame": np.asarray(frames, "i4"), "y": np.zeros(1), "x": np.zeros(1)}
    bench.pvs[0].post(Value(TABLE, {"value": row}))
    with pytest.raises(DocumentError, match="wanted whole numbers"):
        bench.look()


def test_a_column_that_is_missing_is_named() -> None:
    bench = Bench(1, y="sample_y", x="sample_x")
    bench.pvs[0].post_table([0])
    with pytest.raises(DocumentError, match=r"wanted an NTTable with positions: .*sample_y"):
        bench.look()


def test_the_unit_of_a_pv_must_be_the_configured_one(tmp_path: Path) -> None:
    bench = Bench()
    for n in (0, 3):
        for pv, values in zip(bench.pvs, AXES_UM, strict=True):
            pv.post_array(values[:n], unit="mm")
        bench.look()
    descriptor = dict(bench.documents)["descriptor"]
    assert [key["units"] for key in descriptor["data_keys"].values()] == ["mm", "mm"]


def stage_of(bench: Bench, scans: Path) -> Positions:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choice.SOURCES, "pva", lambda config, scans: bench.source)
        return Positions(config(late_s=0.5), scans)


def test_two_scans_in_a_row_get_their_own_positions(tmp_path: Path) -> None:
    bench = Bench()
    stage = stage_of(bench, tmp_path)
    for scan, offset_um in (("A", 0.0), ("B", 5.0)):
        detector = Detector(tmp_path, scan)
        stage.idle(1.0)
        for n in (0, 7, N):
            for pv, values in zip(bench.pvs, AXES_UM, strict=True):
                pv.post_array(values[:n] + offset_um)
            stage.idle(2.0)
        detector.close()  # the next one may begin before this stage has looked
        if scan == "A":
            first = detector
    stage.idle(3.0)
    stage.close()
    assert_all_positions(first)
    assert (detector.states() == State.DONE).all()
    np.testing.assert_allclose(detector.positions_m(), TRUTH_M[:N] + 5e-6, atol=1e-15)


def test_a_scan_goes_on_after_the_process_died(tmp_path: Path) -> None:
    before, after = Bench(), Bench()
    detector = Detector(tmp_path, "A")
    stage = stage_of(before, tmp_path)
    for n in (0, 9):
        before.pvs[0].post_array(AXES_UM[0][:n])
        before.pvs[1].post_array(AXES_UM[1][:n])
        stage.idle(1.0)
    stage = stage_of(after, tmp_path)
    after.pvs[0].post_array(AXES_UM[0][:20])  # what they hold by now
    after.pvs[1].post_array(AXES_UM[1][:20])
    stage.idle(2.0)
    after.pvs[0].post_array(AXES_UM[0][:N])
    after.pvs[1].post_array(AXES_UM[1][:N])
    stage.idle(3.0)
    detector.close()
    stage.idle(4.0)
    stage.close()
    assert_all_positions(detector)


def test_real_pvs_are_followed() -> None:
    pvs = {name: SharedPV(initial=Value(ARRAY, {"value": np.empty(0)})) for name in ("T:Y", "T:X")}
    documents: list[Said] = []
    with own_network():
        source = pva_positions(config())
        assert source.receive() == []
        assert source.waits_for == "PV T:Y, PV T:X"
        with served(pvs):
            while source.receive() or source.waits_for:
                pass
            for n in (3, 9):
                for pv, values in zip(pvs.values(), AXES_UM, strict=True):
                    pv.post(Value(ARRAY, {"value": values[:n]}))
            while not documents or documents[-1][1].get("seq_num", [0])[-1] < 9:
                documents += source.receive()
            source.close()
    assert [name for name, _ in documents][:2] == ["start", "descriptor"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "pva"}, "`pvs` are what source 'pva' needs"),
        ({"source": "documents", "pvs": ["Y", "X"]}, "`pvs` are what source 'pva' needs"),
        ({"source": "pva", "pvs": ["Y", "X"], "numbers": "frame"}, "columns of a table"),
        ({"source": "pva", "pvs": ["T"], "numbers": "frame", "captures_per_frame": 2}, "wanted captures_per"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PositionsConfig(unit="um", **settings)
