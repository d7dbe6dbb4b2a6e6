"""Every field of every message from outside with a wrong value: one clear refusal, and the stage goes on."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.detector.dialects import DIALECTS
from stream.detector.protocol import DetectorMessageError, Dialect, ImageMessage
from stream.documents.codec import to_msgpack
from stream.record.scan import State
from stream.stages.refusals import MOST_CHARACTERS
from tests.helpers.stream import position_stage
from tests.helpers.stream.detector import Recorder, assert_recorded, series_as
from tests.helpers.stream.position_stage import Detector, page, stage, start, stop, wire
from tests.helpers.stream.wrong_messages import (
    DOCUMENTS,
    WrongMessages,
    as_json,
    fields_of,
    harmed,
    on_the_wire,
)
from tests.helpers.stream.wrong_values import ARRAYS, WRONG, wrong_messages

USED = {"image_dtype": "uint16", "user_data": {"angle": 1.5}}  # fields that may be there


def wrong_parts(dialect: str) -> Iterator[list[bytes]]:
    start, image, *_, end = series_as(dialect, "w", 3)
    for message in (start, image, end):
        for index, part in enumerate(message):
            if (written := fields_of(part)) is None:
                continue
            fields, write = written
            for _, wrong in wrong_messages(fields | USED, WRONG):
                with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
                    if (encoded := write(wrong)) is not None:
                        yield [*message[:index], encoded, *message[index + 1 :]]


def understood(dialect: Dialect, parts: list[bytes]) -> bool:
    """Whether the decoder takes it; its frame is decoded as well, whatever comes of that."""
    try:
        message = dialect.decode(parts)
    except DetectorMessageError:
        return False
    if isinstance(message, ImageMessage):
        with contextlib.suppress(DetectorMessageError):
            message.frame().decode()
    return True


@pytest.mark.parametrize("name", DIALECTS)
def test_every_field_of_the_detector_that_is_wrong_is_refused_and_the_next_series_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    recorder, dialect = Recorder(tmp_path, format=name), DIALECTS[name]()
    n_wrong = n_refused = 0
    taken = []
    for parts in wrong_parts(name):
        n_wrong += 1
        before = recorder.subscriber.progress()[1]["rejected"]
        if understood(dialect, parts):
            taken.append(parts)
            continue
        recorder.take([parts])
        n_refused += recorder.subscriber.progress()[1]["rejected"] - before
    assert n_wrong > 400
    assert n_refused == n_wrong - len(taken)
    recorder.take(taken)
    recorder.take(series_as(name, "good", 5, series_id=4711))
    assert_recorded(recorder.scan(), range(5))
    assert all(len(record.getMessage()) < MOST_CHARACTERS + 200 for record in caplog.records)
    restarted = Recorder(tmp_path, format=name)
    restarted.take(series_as(name, "after a restart", 5, series_id=4712))
    assert_recorded(restarted.scan(), range(5))


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("serializer", [to_msgpack, as_json])
def test_every_field_of_a_document_that_is_wrong_is_refused_and_the_next_run_is_placed(
    tmp_path: Path, name: str, serializer: Any
) -> None:
    positions = stage(tmp_path)
    n_wrong = 0
    for _, wrong in wrong_messages(DOCUMENTS[name], WRONG | ({} if serializer is as_json else ARRAYS)):
        messages = on_the_wire(name, wrong, serializer)
        n_wrong += len(messages)
        for other, document in DOCUMENTS.items():
            positions.handle(messages if other == name else [wire(other, document)])
        positions.idle(0.0)
    assert n_wrong > 20
    assert positions.progress()[1]["refused"] > 0
    good = Detector(tmp_path, "good")
    for message in [
        *start("good", detector_series_id="good"),
        page(range(position_stage.N), "good"),
        stop("good"),
    ]:
        positions.handle([message])
    assert (good.states() == State.DONE).all()
    restarted = stage(tmp_path)
    good.close()
    restarted.idle(0.0)
    assert good.counter("closed") == 1


def hear_harmed_documents(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    detector = Detector(folder, f"a{seed}")
    positions = stage(folder)
    for name, document in DOCUMENTS.items():
        serializer = rng.choice([to_msgpack, as_json])
        positions.handle(on_the_wire(name, harmed(document, rng, WRONG), serializer))
    detector.close()
    positions.idle(0.0)
    stage(folder).close()


def hear_harmed_frames(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    dialect = rng.choice([*DIALECTS])
    recorder, wrong = Recorder(folder, format=dialect), WrongMessages(series_as(dialect, "w", 3), rng)
    for _ in range(5):
        recorder.take([wrong.next()])
    recorder.subscriber.close()


QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=30, **QUIET)
@given(seed=st.integers(0, 2**32))
def test_messages_with_several_wrong_fields_are_borne(tmp_path_factory: Any, seed: int) -> None:
    hear_harmed_documents(seed, tmp_path_factory.mktemp("documents"))
    hear_harmed_frames(seed, tmp_path_factory.mktemp("frames"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=2000, **QUIET)
@given(seed=st.integers(0, 2**32))
def test_many_messages_with_several_wrong_fields_are_borne(tmp_path_factory: Any, seed: int) -> None:
    hear_harmed_documents(seed, tmp_path_factory.mktemp("documents"))
    hear_harmed_frames(seed, tmp_path_factory.mktemp("frames"))
