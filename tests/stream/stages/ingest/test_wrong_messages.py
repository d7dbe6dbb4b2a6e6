"""Every field of every message from outside with a wrong value: one clear refusal, and the stage goes on."""

import contextlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.detector.dectris import DetectorMessageError, ImageMessage, decode_message
from stream.documents.codec import to_msgpack
from stream.record.scan import State
from stream.stages.refusals import MOST_CHARACTERS
from tests.helpers.stream import position_stage
from tests.helpers.stream.detector import Recorder, assert_recorded, series
from tests.helpers.stream.position_stage import Detector, page, stage, start, stop, wire
from tests.helpers.stream.wrong_values import ARRAYS, WRONG, changed, places, wrong_messages

TAG = "a tag of CBOR"  # as which maps of these two keys are sent
START, *IMAGES, END = series("w", 3)

DOCUMENTS: dict[str, dict[str, Any]] = {
    "start": {"uid": "r1", "time": 1.0, "detector_series_id": "a", "plan_name": "scan"},
    "descriptor": {
        "uid": "r1-d",
        "run_start": "r1",
        "name": "primary",
        "data_keys": {"stage-y": {"units": "um", "shape": []}, "stage-x": {"units": "um"}},
        "hints": {"stage": {"fields": ["stage-y", "stage-x"]}},
    },
    "event": {"descriptor": "r1-d", "seq_num": 1, "data": {"stage-y": 1.0, "stage-x": 2.0}, "filled": {}},
    "event_page": {"descriptor": "r1-d", "seq_num": [2, 3], "data": {"stage-y": [1, 2], "stage-x": [2, 3]}},
    "resource": {"uid": "res", "run_start": "r1", "resource_kwargs": {"a": 1}},
    "datum": {"resource": "res", "datum_id": "x", "datum_kwargs": {}},
    "datum_page": {"resource": "res", "datum_id": ["x"], "datum_kwargs": {}},
    "stream_resource": {"uid": "sr", "run_start": "r1", "parameters": {}},
    "stream_datum": {"descriptor": "r1-d", "stream_resource": "sr", "indices": {"start": 0, "stop": 3}},
    "stop": {"uid": "s", "run_start": "r1", "exit_status": "success", "num_events": {"primary": 3}},
}


def tags_as_maps(value: Any) -> Any:
    """A decoded message with each CBOR tag as a map, so that its number and content are fields too."""
    if isinstance(value, cbor2.CBORTag):
        return {TAG: value.tag, "content": tags_as_maps(value.value)}
    if hasattr(value, "items"):
        return {key: tags_as_maps(content) for key, content in value.items()}
    return [tags_as_maps(item) for item in value] if isinstance(value, list | tuple) else value


def cbor(value: Any) -> bytes | None:
    """The message on the wire, None where CBOR cannot carry it."""
    with contextlib.suppress(ValueError, TypeError, RecursionError, cbor2.CBORError):
        return cbor2.dumps(_maps_as_tags(value))
    return None


def _maps_as_tags(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {TAG, "content"}:
            return cbor2.CBORTag(value[TAG], _maps_as_tags(value["content"]))
        return {key: _maps_as_tags(content) for key, content in value.items()}
    return [_maps_as_tags(item) for item in value] if isinstance(value, list) else value


def wrong_cbor() -> Iterator[tuple[str, bytes]]:
    for message in (START, IMAGES[0], END):
        fields = tags_as_maps(cbor2.loads(message)) | {"image_dtype": "uint16", "user_data": {"angle": 1.5}}
        for name, wrong in wrong_messages(fields, WRONG):
            if (encoded := cbor(wrong)) is not None:
                yield f"{fields['type']} {name}", encoded


def as_json(value: Any) -> bytes:
    """JSON as a stranger may write it, of whole numbers of any length too."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode()
    finally:
        sys.set_int_max_str_digits(limit)


def on_the_wire(name: str, document: Any, serializer: Any) -> list[list[bytes]]:
    """The message of one document, none where the serializer cannot carry it."""
    with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
        return [[b" ".join([b"", name.encode(), serializer(document)])]]
    return []


def understood(encoded: bytes) -> bool:
    """Whether the decoder takes it; its frame is decoded as well, whatever comes of that."""
    try:
        message = decode_message(encoded)
    except DetectorMessageError:
        return False
    if isinstance(message, ImageMessage):
        with contextlib.suppress(DetectorMessageError):
            message.frame().decode()
    return True


def test_every_field_of_the_detector_that_is_wrong_is_refused_and_the_next_series_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path)
    n_wrong = n_refused = 0
    taken = []
    for _, encoded in wrong_cbor():
        n_wrong += 1
        before = recorder.subscriber.progress()[1]["rejected"]
        if understood(encoded):
            taken.append(encoded)
            continue
        recorder.take([encoded])
        n_refused += recorder.subscriber.progress()[1]["rejected"] - before
    assert n_wrong > 800
    assert n_refused == n_wrong - len(taken)
    recorder.take(taken)
    recorder.take(series("good", 5))
    assert_recorded(recorder.scan(), range(5))
    assert all(len(record.getMessage()) < MOST_CHARACTERS + 200 for record in caplog.records)
    restarted = Recorder(tmp_path)
    restarted.take(series("after a restart", 5))
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


def harmed(message: Any, rng: random.Random, values: dict[str, Any]) -> Any:
    """The message after up to three of its places were given another value."""
    for _ in range(rng.randint(1, 3)):
        if found := list(places(message)):
            message = changed(message, rng.choice(found), rng.choice(list(values.values())))
            if not isinstance(message, dict):
                break
    return message


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
    recorder = Recorder(folder)
    for message in (START, *IMAGES, END):
        encoded = cbor(harmed(tags_as_maps(cbor2.loads(message)), rng, WRONG))
        if encoded is not None:
            recorder.take([encoded])
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
