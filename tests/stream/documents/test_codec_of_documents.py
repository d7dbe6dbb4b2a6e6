import json
import pickle
import random
from functools import partial
from itertools import starmap

import msgpack
import msgpack_numpy
import numpy as np
import pytest

from stream.documents.codec import (
    RECORD_FILE,
    DocumentError,
    append_records,
    as_record,
    decode_document,
    encode_document,
    read_documents,
    repair_record,
    to_msgpack,
)
from stream.wire.sockets import Socket

EVENT = {"uid": "e1", "descriptor": "d1", "seq_num": 3, "data": {"stage-y": 1.5}, "time": 12.0}


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_a_document_survives_the_wire(serializer):
    assert decode_document(encode_document("event", EVENT, serializer=serializer)) == ("event", EVENT)


def test_a_prefix_and_spaces_in_the_payload_are_kept_apart():
    document = {"uid": "e1", "note": "a b  c"}
    assert decode_document(encode_document("start", document, prefix=b"beam")) == ("start", document)


@pytest.mark.parametrize(
    "value", [np.arange(6.0).reshape(2, 3), np.uint16([7]), np.zeros((0, 4), np.complex64), np.float32(2.5)]
)
def test_arrays_are_read_as_msgpack_numpy_writes_them_and_back(value):
    theirs = msgpack.packb({"data": value}, default=msgpack_numpy.encode)
    _, document = decode_document(b" ".join([b"", b"event", theirs]))
    np.testing.assert_array_equal(document["data"], value)
    assert document["data"].dtype == value.dtype
    back = msgpack.unpackb(to_msgpack({"data": value}), object_hook=msgpack_numpy.decode)
    np.testing.assert_array_equal(back["data"], value)


def test_documents_of_the_real_publisher_are_read(monkeypatch):
    from bluesky.callbacks.zmq import Publisher

    sent = []
    publisher = Publisher("127.0.0.1:1", prefix=b"id01", serializer=to_msgpack)
    monkeypatch.setattr(publisher, "_socket", type("Wire", (), {"send": staticmethod(sent.append)}))
    publisher("event_page", {"seq_num": [1, 2], "data": {"y": [0.0, np.float64(1)]}})
    publisher._context.destroy(0)  # its `close` would close the wire above instead of the socket
    assert decode_document(sent[0]) == ("event_page", {"seq_num": [1, 2], "data": {"y": [0.0, 1.0]}})


def test_the_real_publisher_is_heard_with_keys_and_nobody_without(keys):
    from bluesky.callbacks.zmq import ClientCurve, Publisher

    with Socket("SUB", keys.door()) as inlet:
        host, heard = inlet.address.removeprefix("tcp://"), None
        for key in (keys.stranger, keys.client):
            curve = ClientCurve(key, keys.server_public)
            publisher = Publisher(host, serializer=to_msgpack, curve_config=curve)
            for _ in range(5 if key is keys.stranger else 500):
                publisher("start", {"uid": key.stem})
                heard = heard or inlet.receive(timeout_s=0.02)
                if heard:
                    break
            publisher.close()
        assert decode_document(bytes(heard[0])) == ("start", {"uid": "client"})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused_unread_and_the_remedy_named(protocol, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").write_text, ("boom",))

    payload = pickle.dumps({"uid": "x", "bomb": Bomb()}, protocol=protocol)
    with pytest.raises(DocumentError, match=r"serializer=stream\.documents\.codec\.to_msgpack"):
        decode_document(b" start " + payload)
    assert not (tmp_path / "exploded").exists()


def test_a_pickled_array_inside_msgpack_is_refused_unread():
    objects = np.empty(1, object)
    objects[0] = "anything"
    message = b" event " + msgpack.packb({"data": objects}, default=msgpack_numpy.encode)
    with pytest.raises(DocumentError, match="plain numbers"):
        decode_document(message)


def test_what_cannot_be_sent_safely_is_not_sent():
    with pytest.raises(TypeError, match="cannot carry"):
        to_msgpack({"data": np.array([object()])})


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "wanted 'prefix name payload'"),
        (b"garbage", "wanted 'prefix name payload'"),
        (b"x" * 300 + b" start {}", "wanted 'prefix name payload'"),
        (b" sabotage {}", "unknown document 'sabotage'"),
        (b" start {", "start document: neither msgpack nor JSON"),
        (b" start \xc1", "neither msgpack nor JSON"),
        (b" start " + msgpack.packb([1, 2]), "wanted a mapping, got list"),
        (b" start " + b'{"a":' * 100_000, "neither msgpack nor JSON"),
    ],
)
def test_what_is_no_document_is_refused_with_a_reason(message, words):
    with pytest.raises(DocumentError, match=words):
        decode_document(message)


def test_mutated_bytes_never_raise_anything_else():
    rng = random.Random(7)
    array = {"data": {"y": np.arange(4.0), "x": np.float32(1)}, "seq_num": [1, 2]}
    valid = [encode_document("event_page", array), encode_document("event", EVENT, serializer="json")]
    n_read = 0
    for _ in range(10_000):
        message = bytearray(rng.choice(valid))
        for _ in range(rng.randint(1, 4)):
            message[rng.randrange(len(message))] = rng.randrange(256)
        try:
            decode_document(message[: rng.randint(1, len(message))])
            n_read += 1
        except DocumentError:
            pass
    assert 0 < n_read < 10_000


def test_recorded_documents_come_back_in_order_and_a_torn_end_is_cut_off(tmp_path):
    documents = [("start", {"uid": "r"}), ("event", {"seq_num": 1, "data": {"y": 0.5}})]
    append_records(tmp_path, starmap(as_record, documents))
    whole = (tmp_path / RECORD_FILE).stat().st_size
    append_records(tmp_path, [as_record("stop", {"uid": "s", "run_start": "r"})])
    with (tmp_path / RECORD_FILE).open("r+b") as file:
        file.truncate(whole + 9)

    assert read_documents(tmp_path) == documents
    repair_record(tmp_path)
    append_records(tmp_path, [as_record("stop", {"uid": "s2"})])
    assert read_documents(tmp_path) == [*documents, ("stop", {"uid": "s2"})]


def test_of_a_record_that_is_damaged_again_and_again_every_copy_is_kept(tmp_path):
    record, kept = tmp_path / RECORD_FILE, []
    for number, name in enumerate(("damaged", "damaged.1", "damaged.2")):
        append_records(tmp_path, [as_record("event", {"seq_num": number}), b"\3\0\0\0abc"])
        kept.append(record.read_bytes())
        told = repair_record(tmp_path)
        assert told.startswith(f"all of them lie in {record}.{name}: ")
        copies = sorted(tmp_path.glob(f"{RECORD_FILE}.*"))
        assert [copy.read_bytes() for copy in copies] == kept
    assert [document["seq_num"] for _, document in read_documents(tmp_path)] == [0, 1, 2]


def test_a_scan_without_documents_has_none(tmp_path):
    repair_record(tmp_path)
    assert read_documents(tmp_path) == []


def test_a_record_of_something_else_is_named(tmp_path):
    record = msgpack.packb(["picture", {}])
    (tmp_path / RECORD_FILE).write_bytes(len(record).to_bytes(4, "little") + record)
    with pytest.raises(DocumentError, match="no document at byte 0"):
        read_documents(tmp_path)


def test_json_of_any_publisher_is_read():
    dumps = partial(json.dumps, indent=1)
    assert decode_document(b"p stop " + dumps({"run_start": "r"}).encode()) == ("stop", {"run_start": "r"})
