"""What a configuration may name as the detector's format is a dialect, and has a memory of its own."""

from typing import get_args

import pytest

from stream.detector.dialects import DIALECTS
from stream.detector.protocol import DetectorMessageError
from stream.stages.config import DetectorConfig


def test_every_format_of_the_configuration_is_a_dialect() -> None:
    assert get_args(DetectorConfig.model_fields["format"].annotation) == tuple(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_none_of_its_messages_is_refused_by_its_own_error(name: str) -> None:
    dialect = DIALECTS[name]()
    for parts in ([], [b""], [b"\xff"], [bytes(100)], [b"{}", b""], [b"x"] * 20):
        with pytest.raises(DetectorMessageError):
            dialect.decode(parts)
