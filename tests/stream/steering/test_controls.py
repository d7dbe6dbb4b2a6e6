import msgspec
import numpy as np
import pytest

from stream.steering.controls import ControlLog, sentence
from stream.wire.codec import ProtocolError, decode, encode
from stream.wire.messages import Consult, Control, Controls

BOX = ((0.0, 1.0), (2.0, 3.0))


def test_words_are_numbered_and_the_last_of_each_kind_counts():
    controls = ControlLog()
    for deed, region in (("hold", None), ("region", BOX), ("resume", None), ("clear", None), ("hold", None)):
        controls.say(deed, region, "lab")
    assert [control.number for control in controls.said] == [1, 2, 3, 4, 5]
    assert (controls.held, controls.region, controls.stopper) == (True, None, None)
    assert [sentence(control) for control in controls.since(3)] == ["region cleared by lab", "held by lab"]


def test_who_hears_a_word_twice_hears_it_once():
    person, plan = ControlLog(), ControlLog()
    person.say("region", BOX)
    person.say("hold")
    for _ in range(2):
        for control in person.said:
            plan.take(control)
    assert [control.deed for control in plan.news()] == ["region", "hold"]
    assert plan.news() == ()
    assert (plan.held, plan.region, plan.number) == (True, BOX, 2)


def test_who_was_started_anew_takes_over_what_the_plan_knows_and_counts_on():
    anew = ControlLog()
    anew.adopt(Consult(run="r", question=9, after=4, n_points=3, heard=7, held=True, region=BOX))
    assert (anew.held, anew.region) == (True, BOX)
    assert anew.say("resume").number == 8
    anew.adopt(Consult(run="r", question=10, after=5, n_points=3, heard=7, held=True))
    assert not anew.held


def test_what_makes_no_sense_is_refused():
    controls = ControlLog()
    for deed, region in (("region", None), ("hold", BOX), ("region", ((1.0, 1.0), (0.0, 1.0)))):
        with pytest.raises(ValueError, match=f"{deed}: expected"):
            controls.say(deed, region)
    controls.say("stop", by="lab")
    with pytest.raises(ValueError, match="resume: the run was stopped by lab"):
        controls.say("resume")
    assert [control.deed for control in controls.said] == ["stop"]


@pytest.mark.parametrize("edge", [np.nan, np.inf, 1e13])
def test_a_region_that_is_nowhere_is_no_message(edge):
    control = msgspec.structs.replace(Control(number=1, deed="region"), region=((0.0, edge), (0.0, 1.0)))
    with pytest.raises(ProtocolError, match="region"):
        decode(encode(Controls(run="r", controls=(control,))))
