import numpy as np
import pytest

from stream.documents.codec import DocumentError
from stream.documents.position_reader import PositionFields, PositionReader


def descriptor(uid="d1", name="primary", fields=("stage-y", "stage-x"), units="um", hints=None):
    return {
        "uid": uid,
        "run_start": "r1",
        "name": name,
        "data_keys": {field: {"dtype": "number", "shape": [], "units": units} for field in fields},
        "hints": {field: {"fields": [field]} for field in fields} if hints is None else hints,
    }


def event(seq_num, y, x, uid="d1"):
    return {"descriptor": uid, "seq_num": seq_num, "data": {"stage-y": y, "stage-x": x}}


def reader(**changes):
    return PositionReader(PositionFields(**{"unit": "um", **changes}))


def test_an_event_gives_the_frame_one_less_than_its_seq_num():
    it = reader()
    it.read("descriptor", descriptor())
    numbers, raw, *_ = it.read("event", event(1204, 1.5, -2.5))
    assert numbers.tolist() == [1203]
    assert raw.tolist() == [[1.5, -2.5]]


def test_an_event_page_gives_a_frame_per_row():
    it = reader()
    it.read("descriptor", descriptor())
    numbers, raw, *_ = it.read("event_page", event([3, 4, 5], [1.0, 2.0, 3.0], np.array([4.0, 5.0, 6.0])))
    assert numbers.tolist() == [2, 3, 4]
    assert raw.tolist() == [[1, 4], [2, 5], [3, 6]]


def test_several_frames_of_an_event_share_its_position_or_have_their_own():
    it = reader(frames_per_event=3)
    it.read("descriptor", descriptor())
    numbers, raw, *_ = it.read("event", event(2, 7.0, [1.0, 2.0, 3.0]))
    assert numbers.tolist() == [3, 4, 5]
    assert raw.tolist() == [[7, 1], [7, 2], [7, 3]]
    numbers, raw, *_ = it.read("event_page", event([1, 2], [7.0, 8.0], [[1, 2, 3], [4, 5, 6]]))
    assert numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert raw[:, 0].tolist() == [7, 7, 7, 8, 8, 8]
    assert raw[:, 1].tolist() == [1, 2, 3, 4, 5, 6]


def test_unit_and_signs_turn_motor_readings_into_probe_positions():
    it = reader(unit="um", signs=(-1, 1))
    np.testing.assert_allclose(it.to_metres(np.array([[1.0, 2.0]])), [[-1e-6, 2e-6]])


def test_a_named_motor_means_its_hinted_field():
    it = reader(y="m1", x="m2")
    hints = {"m1": {"fields": ["stage-y"]}, "m2": {"fields": ["stage-x"]}}
    it.read("descriptor", descriptor(hints=hints))
    assert it.read("event", event(1, 3.0, 4.0))[1].tolist() == [[3.0, 4.0]]


def test_the_first_stream_that_has_the_fields_is_taken_and_only_that():
    it = reader()
    it.read("descriptor", descriptor("d0", "baseline", ("temperature",), "K"))
    it.read("descriptor", descriptor("d1", "panda"))
    it.read("descriptor", descriptor("d2", "monitor"))
    assert it.read("event", {"descriptor": "d0", "seq_num": 1, "data": {"temperature": 290}})[0].size == 0
    assert it.read("event", event(1, 0.0, 0.0, uid="d2"))[0].size == 0
    assert it.read("event", event(1, 0.0, 0.0, uid="d1"))[0].size == 1


def test_a_second_descriptor_of_the_same_stream_goes_on():
    it = reader()
    it.read("descriptor", descriptor("d1"))
    it.read("descriptor", descriptor("d2"))
    assert it.read("event", event(5, 0.0, 0.0, uid="d2"))[0].tolist() == [4]


def test_a_configured_stream_without_the_fields_says_which_there_are():
    it = reader(stream="panda", y="sample_y", x="sample_x")
    it.read("descriptor", descriptor("d0", "primary"))
    with pytest.raises(DocumentError, match=r"wanted 'sample_y' and 'sample_x' in stream 'panda'.*stage-y"):
        it.read("descriptor", descriptor("d1", "panda"))


def test_hinted_fields_that_do_not_name_the_axes_are_never_guessed():
    it = reader()
    it.read("descriptor", descriptor(fields=("m1", "m2")))
    with pytest.raises(DocumentError, match=r"hints m1 \(m1\), m2 \(m2\)\. Name motors or fields"):
        it.read("stop", {"run_start": "r1"})


def test_two_hinted_fields_for_one_axis_are_ambiguous():
    it = reader()
    it.read("descriptor", descriptor(fields=("coarse_y", "fine_y", "fine_x")))
    with pytest.raises(DocumentError, match="one hinted field for y"):
        it.read("stop", {"run_start": "r1"})


def test_a_motor_with_several_hinted_fields_asks_for_one():
    hints = {"m1": {"fields": ["stage-y", "stage-x"]}, "m2": {"fields": ["stage-x"]}}
    with pytest.raises(DocumentError, match="motor 'm1' hints stage-y, stage-x"):
        reader(y="m1", x="m2").read("descriptor", descriptor(hints=hints))


@pytest.mark.parametrize("units", ["µm", "μm", "microns", "um", "", None])
def test_other_spellings_of_the_unit_agree(units):
    it = reader(unit="um")
    it.read("descriptor", descriptor(units=units))
    assert it.read("event", event(1, 0.0, 0.0))[0].size == 1


@pytest.mark.parametrize("units", ["mm", "deg", "counts"])
def test_a_contradicting_unit_is_an_error(units):
    with pytest.raises(DocumentError, match=f"'stage-y' is in '{units}' .* says 'um'"):
        reader(unit="um").read("descriptor", descriptor(units=units))


def test_a_primary_stream_without_positions_is_named_at_its_first_event():
    it = reader()
    it.read("descriptor", descriptor(fields=("m1", "m2")))
    for seq_num in (1, 2, 3):
        it.read("event", {"descriptor": "d1", "seq_num": seq_num, "data": {"m1": 0, "m2": 0}})
    assert [doubt.count("events without positions") for doubt in it.doubts] == [1]


@pytest.mark.parametrize(
    "bad",
    [
        event(0, 0.0, 0.0),
        event(-1, 0.0, 0.0),
        event(2**60, 0.0, 0.0),
        event("1", 0.0, 0.0),
        event(True, 0.0, 0.0),
        event(None, 0.0, 0.0),
        event([1], 0.0, 0.0),
        event(1, "far", 0.0),
        event(1, [1.0, 2.0], 0.0),
        event(1, 10**400, 0.0),
        {"descriptor": "d1", "seq_num": 1, "data": {"stage-y": 0.0}},
        {"descriptor": "d1", "seq_num": 1, "data": [1, 2]},
    ],
)
def test_an_event_that_is_none_is_refused(bad):
    it = reader()
    it.read("descriptor", descriptor())
    with pytest.raises(DocumentError):
        it.read("event", bad)


@pytest.mark.parametrize("seq_nums", [[1, [2]], [1, 2.5], 1, None, "12"])
def test_a_page_with_impossible_numbers_is_refused(seq_nums):
    it = reader()
    it.read("descriptor", descriptor())
    with pytest.raises(DocumentError):
        it.read("event_page", event(seq_nums, [1.0, 2.0], [1.0, 2.0]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": "inch"}, "'m', 'mm', 'um' or 'nm'"),
        ({"signs": (1, 0)}, "-1 or 1"),
        ({"y": "a"}, "two different fields"),
        ({"y": "a", "x": "a"}, "two different fields"),
        ({"frames_per_event": 0}, "frames_per_event"),
    ],
)
def test_fields_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        PositionFields(**{"unit": "um", **changes})
