import event_model
import numpy as np
import pytest

from stream.documents.config import PositionsConfig
from stream.documents.sources.run import RunDocuments
from stream.record.scan import State
from stream.stages.positions import Positions
from tests.helpers.stream.position_stage import Detector, assert_all_positions, stage, wire

N = 40


def maker(**changes):
    return RunDocuments("test", PositionsConfig(unit="um", **changes), clock=lambda: 5.0)


def test_documents_are_what_bluesky_takes_for_documents():
    it = maker(captures_per_frame=2, settled="is/still", y="/FMC_IN.VAL1.Value", x="/FMC_IN.VAL2.Value")
    said = it.start(series="7", units=["um", "um"], sources=["a", "b"])
    for axis in range(3):
        it.add(axis, 0, np.arange(6))
    said += [*it.pages(), *it.stop()]
    assert [name for name, _ in said] == ["start", "descriptor", "event_page", "stop"]
    for name, document in said:
        plain = {**document, **{key: _plain(value) for key, value in document.items() if key == "data"}}
        event_model.schema_validators[event_model.DocumentNames[name]].validate(plain)


def _plain(data):
    return {key: values.tolist() for key, values in data.items()}


def test_a_frame_comes_once_when_all_its_captures_of_both_axes_are_there():
    it = maker(captures_per_frame=4)
    it.start()
    it.add(0, 0, np.arange(10.0))
    assert it.pages() == []
    it.add(1, 6, np.arange(6.0, 12.0))
    it.add(1, 0, np.arange(6.0))
    assert [page["seq_num"] for _, page in it.pages()] == [[1, 2]]
    assert it.pages() == []
    it.add(0, 10, [10.0, 11.0])
    ((_, page),) = it.pages()
    assert page["seq_num"] == [3]
    np.testing.assert_array_equal(page["data"]["y"], [[8, 9, 10, 11]])
    assert it.n_captures == 12


def test_rows_with_many_gaps_all_become_frames():
    it, numbers = maker(), np.arange(0, 200, 2)
    it.start()
    it.add_rows(numbers, np.stack([numbers, -numbers], axis=1).astype(float))
    pages = [page for _, page in it.pages()]
    assert np.concatenate([page["seq_num"] for page in pages]).tolist() == (numbers + 1).tolist()
    np.testing.assert_array_equal(np.concatenate([page["data"]["x"] for page in pages]), -numbers)


def test_a_run_that_another_process_left_open_goes_on_and_one_of_another_source_does_not():
    before, after, other = maker(), maker(), RunDocuments("other", PositionsConfig(unit="um"))
    said = before.start(series="7")
    before.add(0, 0, [1.0, 2.0])
    before.add(1, 0, [1.0, 2.0])
    for name, document in [*said, *before.pages()]:
        after.resume(name, document)
        other.resume(name, document)
    assert after.is_open
    assert after.n_captures == 2
    assert not other.is_open
    after.add(0, 2, [3.0])
    after.add(1, 2, [3.0])
    ((_, page),) = after.pages()
    assert (page["descriptor"], page["seq_num"]) == (said[1][1]["uid"], [3])
    assert after.stop()[0][1]["run_start"] == said[0][1]["uid"]


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1)])
def test_several_captures_give_their_mean_their_spread_and_the_travel(scans, signs):
    """Also after the stage was started again, from what it has recorded."""
    source, detector = maker(captures_per_frame=4), Detector(scans, "a", n_frames=N)
    it = stage(scans, unit="um", signs=signs)
    captures = np.arange(N)[:, None] + np.array([0.0, 0.1, 0.2, 0.5])
    said = source.start()
    source.add(0, 0, captures)
    source.add(1, 0, -2 * captures)
    said += source.pages()
    it.handle([wire(*one) for one in said])
    again = Positions(it.config, scans)
    again.handle([wire(*one) for one in source.stop()])
    detector.close()
    again.idle(0.0)
    told = {name: detector.scan.column(name).read(np.arange(N)) for name in ("spread_m", "travel_m")}
    y = np.array(signs[0]) * 1e-6
    np.testing.assert_allclose(detector.positions_m()[:, 0], captures.mean(axis=1) * y)
    np.testing.assert_allclose(told["spread_m"][:, 0], captures.std(axis=1) * 1e-6)
    np.testing.assert_allclose(told["spread_m"][:, 1], captures.std(axis=1) * 2e-6)
    np.testing.assert_allclose(told["travel_m"], np.tile([0.5 * y, -1e-6], (N, 1)), atol=1e-15)


def test_a_scan_with_one_capture_a_frame_has_no_such_columns(scans):
    source, detector = maker(), Detector(scans, "a", n_frames=2)
    it = stage(scans)
    said = source.start()
    source.add(0, 0, [0.0, 1.0])
    source.add(1, 0, [0.0, -2.0])
    said += [*source.pages(), *source.stop()]
    it.handle([wire(*one) for one in said])
    detector.close()
    it.idle(0.0)
    assert_all_positions(detector)
    assert (detector.states() == State.DONE).all()
    assert not (detector.scan.has("spread_m") or detector.scan.has("travel_m"))
