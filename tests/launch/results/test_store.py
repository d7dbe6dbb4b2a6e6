import sys

import numpy as np
import pytest

pytest.importorskip("databroker", reason="the extra 'beamline' is not installed")

import dask.array

from launch.results.store.catalogue import Result, StoreError, open_store
from tests.helpers.launch.stored import (
    FRAMES,
    GEOMETRY,
    POSITIONS_M,
    RECORDED,
    beamline_documents,
    recorded_scan,
)

OBJECT = np.exp(1j * np.linspace(0, 3, 30 * 20)).reshape(30, 20).astype(np.complex64)
PROBE = np.exp(-1j * np.arange(2 * 8 * 8)).reshape(2, 8, 8).astype(np.complex64)
RESULT = Result(
    arrays={"object": OBJECT, "probe": PROBE, "positions_m": POSITIONS_M},
    metadata={"model": "abc", "epochs": 12.5, "complete": True, "object_pixel_m": 2.8e-8},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    # Dask, which databroker reads with, keeps its threads for the life of the process.
    dask.array.zeros(8, chunks=1).compute(scheduler="threads")
    return tmp_path_factory.mktemp("store")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_recorded_run_is_found_again_by_its_uid(folder):
    scan = recorded_scan(folder / "scans")
    with open_store(folder / "store") as store:
        uid, recon_uid = store.record_run(scan.folder, beamline_documents("run-1"), RESULT, geometry=GEOMETRY)
        assert uid == "run-1"

    with open_store(folder / "store") as store:
        broker = store.databroker()
        header = broker[uid]
        assert header.start["plan_name"] == "fly"
        assert header.stop["exit_status"] == "success"
        assert header.table(fill=True)["stage-y"].tolist() == [0.1, 0.2, 0.3]
        frames = np.stack(header.table("recorded", fill=True)["recorded_frames"].tolist())
        np.testing.assert_array_equal(frames, FRAMES[RECORDED])
        names = [name for name, _ in header.documents()]
        assert (names[0], names[-1]) == ("start", "stop")

        stored = store.scan("run")
        assert stored.name == uid
        np.testing.assert_array_equal(stored.frames[2:5], FRAMES[RECORDED][2:5])
        np.testing.assert_array_equal(stored.positions_m[:8], POSITIONS_M[RECORDED][:8])
        assert np.isnan(stored.positions_m[8]).all()
        assert stored.frame_numbers.tolist() == RECORDED
        assert stored.geometry == GEOMETRY
        np.testing.assert_array_equal(stored.probe, PROBE)

        assert store.results(uid) == [recon_uid]
        # As any client of the tiled server finds it.
        run = store._client["processed"].v3[recon_uid]
        assert run.metadata["start"]["raw_uid"] == uid
        assert run.metadata["start"]["epochs"] == 12.5
        np.testing.assert_array_equal(run["object"].read(), OBJECT)
        np.testing.assert_allclose(run["object_phase"].read(), np.angle(OBJECT), atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_recorded_again_gets_another_result_and_one_without_documents_is_composed(folder):
    scan = recorded_scan(folder / "more scans")
    with open_store(folder / "store") as store:
        first = store.record_run(scan.folder, beamline_documents("again"), RESULT)
        second = store.record_run(scan.folder, beamline_documents("again"), RESULT)
        assert first[0] == second[0] == "again"
        assert store.results("again") == [first[1], second[1]]

        uid, recon_uid = store.record_run(scan.folder)
        assert recon_uid is None
        stored = store.scan(uid[:13])
        np.testing.assert_array_equal(stored.frames[:], FRAMES[RECORDED])
        assert stored.geometry is None
        assert stored.probe is None
        assert len(store.databroker()[uid].table(fill=True)) == len(RECORDED)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_the_store_does_not_hold_is_named(folder):
    with open_store(folder / "store") as store:
        with pytest.raises(StoreError, match="begins with 'zzz', found none"):
            store.scan("zzz")
        with pytest.raises(StoreError, match="begin with its start document"):
            store.record_run(recorded_scan(folder / "other").folder, beamline_documents()[1:])


def test_a_missing_extra_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bluesky_tiled_plugins.exporters", None)
    with pytest.raises(StoreError, match=r"pip install 'ptychostream\[beamline\]'"):
        open_store(tmp_path)
