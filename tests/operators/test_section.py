import pytest
from pydantic import PositiveInt, ValidationError

from operators.section import Fraction, Section


class Settings(Section):
    share: Fraction = 0.5
    """of something"""
    n: PositiveInt = 3
    """of others"""


def test_changed_settings_are_new_ones_and_those_before_stay():
    before = Settings(n=4)
    assert before.changed(share=1.0) == Settings(n=4, share=1.0)
    assert before == Settings(n=4)
    with pytest.raises(ValidationError, match="frozen"):
        before.n = 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, r"n\n.*greater than 0"),
        ({"share": float("nan")}, "share"),
        ({"m": 1}, r"m\n.*not permitted"),
    ],
)
def test_changes_are_checked_as_if_they_had_been_given(change, message):
    with pytest.raises(ValueError, match=message):
        Settings().changed(**change)


def test_a_section_of_a_derived_kind_can_be_changed_too():
    class More(Settings):
        share: Fraction = 0.25

    assert More().changed(n=1) == More(n=1, share=0.25)
