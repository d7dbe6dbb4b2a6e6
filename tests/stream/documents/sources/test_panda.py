"""A PandA's own stream, from a simulated one over TCP, and its relay's JSON."""

import json
import logging
import random
import socket

import numpy as np
import pytest

from stream.documents.codec import DocumentError
from stream.documents.config import PositionsConfig, field_name
from stream.documents.panda_server import PandaServer
from stream.documents.senders import relay_messages
from stream.documents.sources.panda import RETRY_S, PandaStream
from stream.documents.sources.panda_json import PandaRelay
from tests.helpers.stream.clock import Clock

Y, X = "INENC1.VAL.Value", "INENC2.VAL.Mean"
SETTINGS = {"y": Y, "x": "INENC2.VAL", "unit": "um", "captures_per_frame": 2}
RELAY = {"source": "panda-json", "address": "ipc:///nobody", "unit": "um", "y": Y, "x": X}


def captures(first, stop):
    return np.arange(first, stop)[:, None] * np.array([1.0, -0.5])


class Link:
    """A PandA, and the source that listens to it."""

    def __init__(self, held=1 << 20, **settings):
        self.panda, self.clock = PandaServer((Y, X), (), "um", held=held), Clock()
        self.config = PositionsConfig(source="panda", address=self.panda.address, **SETTINGS | settings)
        self.source = PandaStream(self.config, self.clock)
        self.said = []

    def connect(self):
        self.clock.now += RETRY_S
        while not self.panda.is_heard(0.01):
            self.receive()

    def receive(self):
        """Takes what comes until nothing does for a while."""
        for _ in range(20):
            self.panda.is_heard()
            self.said += self.source.receive()

    def frames(self):
        """The frames of the pages, as often as they came, and their captures of y."""
        pages = [page for name, page in self.said if name == "event_page"]
        numbers = [number - 1 for page in pages for number in page["seq_num"]]
        values = [page["data"][field_name(Y)] for page in pages]
        return numbers, np.concatenate([np.zeros((0, 2)), *values])

    def close(self):
        self.source.close()
        self.panda.close()


@pytest.fixture
def link():
    made = []

    def make(**settings):
        made.append(Link(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def names(said):
    return [name for name, _ in said]


def test_an_acquisition_becomes_a_run(link):
    it = link()
    it.connect()
    it.panda.arm()
    it.panda.capture(captures(0, 5))
    it.receive()
    it.panda.capture(captures(5, 8))
    it.panda.disarm()
    it.receive()
    assert names(it.said) == ["start", "descriptor", "event_page", "event_page", "stop"]
    numbers, values = it.frames()
    assert numbers == [0, 1, 2, 3]
    np.testing.assert_array_equal(values, captures(0, 8)[:, 0].reshape(4, 2))
    assert it.said[1][1]["data_keys"][field_name(Y)]["units"] == "um"
    assert it.said[-1][1]["exit_status"] == "success"


@pytest.mark.parametrize(("held", "expected"), [(1 << 20, range(10)), (6, [0, 1, 7, 8, 9])])
def test_a_connection_that_comes_back_goes_on_where_it_was(link, held, expected):
    it = link(held=held)
    it.connect()
    it.panda.arm()
    it.panda.capture(captures(0, 5))
    it.receive()
    it.panda.drop_clients()
    it.panda.capture(captures(5, 20))
    it.receive()
    assert it.source.waits_for.endswith("it has closed the connection")
    it.connect()
    it.receive()
    it.panda.disarm()
    it.receive()
    numbers, values = it.frames()
    assert numbers == list(expected)
    np.testing.assert_array_equal(values[:, 0], 2.0 * np.array(expected))
    assert names(it.said).count("start") == names(it.said).count("stop") == 1


@pytest.mark.parametrize("is_same", [True, False])
def test_a_process_that_starts_anew_goes_on_with_the_acquisition_if_it_is_the_same(link, is_same):
    it = link()
    it.connect()
    it.panda.arm()
    it.panda.capture(captures(0, 5))
    it.receive()
    before, it.said = it.said, []
    it.source.close()
    it.source = PandaStream(it.config, it.clock)
    for name, document in before:
        it.source.resume(name, document)
    if not is_same:
        it.panda.disarm()
        it.panda.arm()
    it.panda.capture(captures(5, 8))
    it.connect()
    it.receive()
    numbers, _ = it.frames()
    assert names(it.said)[0] == ("event_page" if is_same else "stop")
    assert numbers == ([2, 3] if is_same else [0])


def test_a_field_that_is_not_captured_is_named_with_those_that_are(link, caplog):
    it = link(y="INENC9.VAL")
    it.connect()
    with caplog.at_level(logging.WARNING):
        it.panda.arm()
        it.panda.capture(captures(0, 5))
        it.receive()
    assert it.said == []
    assert f"it captures ['{Y}', '{X}'] and was asked for INENC9.VAL" in caplog.text


def test_a_panda_that_is_not_there_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    clock = Clock()
    source = PandaStream(PositionsConfig(source="panda", address=address, **SETTINGS), clock)
    while "Connection refused" not in source.waits_for:
        assert source.receive() == ()
        clock.now += RETRY_S


def test_an_address_without_a_host_is_refused():
    with pytest.raises(ValueError, match=r"nowhere\.invalid:8889: wanted tcp://HOST:8889 of a PandA"):
        config = PositionsConfig(
            source="panda", address="tcp://nowhere.invalid:8889", insecure=True, **SETTINGS
        )
        PandaStream(config)


def mutated(rng, content):
    """Bytes with some changed, cut out, or doubled."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 4])):
        at = rng.randrange(len(damaged))
        change = rng.random()
        if change < 0.5:
            damaged[at] = rng.randrange(256)
        elif change < 0.75:
            del damaged[at : at + rng.randint(1, 40)]
        else:
            damaged[at:at] = damaged[at : at + rng.randint(1, 40)]
        damaged = damaged or bytearray(b"x")
    return bytes(damaged)


def recording():
    """What a PandA sends to one client during an acquisition."""
    link = Link()
    link.connect()
    link.panda.arm()
    link.panda.capture(captures(0, 20))
    link.panda.disarm()
    link.panda.is_heard()
    content = link.source._socket.recv(1 << 16)
    link.close()
    return b"OK\n" + content


def test_no_damaged_stream_of_a_panda_stops_the_source(caplog, n_mutated=1500):
    caplog.set_level(logging.CRITICAL)
    rng, content = random.Random(0), recording()
    assert content.startswith(b"OK\n<header>\n<data arm_time=")
    assert content.endswith(b"END 20 Disarmed\n")
    config = PositionsConfig(source="panda", address="tcp://127.0.0.1:1", **SETTINGS)
    source, n_pages = PandaStream(config), 0
    for _ in range(n_mutated):
        source._decoder = source._new_decoder()
        source._decoder.connect(scaled=True)
        n_pages += names(source._decoded(mutated(rng, content))).count("event_page")
    assert n_pages > n_mutated / 10


def test_no_damaged_message_of_the_relay_stops_the_source(n_mutated=5000):
    rng, relay = random.Random(0), PandaRelay(PositionsConfig(**RELAY))
    page = {"seq_num": [1, 2, 3, 5], "data": {Y: [0.5, 1, 2, 3], X: [4, 5, 6, 1e-3]}}
    documents = [("start", {}), ("event_page", page), ("stop", {})]
    sent = [0]
    messages = [message for one in documents for message in relay_messages(*one, (Y, X), (Y, X), sent)]
    n_taken = n_refused = 0
    for _ in range(n_mutated):
        try:
            n_taken += len(relay.decode([mutated(rng, rng.choice(messages))]))
        except DocumentError:
            n_refused += 1
    assert min(n_taken, n_refused) > n_mutated / 20


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"msg_type": "hello"}, "of type 'hello': wanted start, data, stop"),
        ({"datasets": {"A": {}}}, "sends no INENC1.VAL.Value and no INENC2.VAL.Mean, but ['A']: name"),
        ({"datasets": [1]}, "with datasets [1]: wanted a mapping"),
    ],
)
def test_what_the_relay_cannot_mean_is_refused_by_name(change, reason):
    relay = PandaRelay(PositionsConfig(**RELAY))
    message = {"msg_type": "data", "frame_number": 0, "datasets": {}} | change
    with pytest.raises(DocumentError) as refusal:
        relay.decode([json.dumps(message).encode()])
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (
            {"starting_sample_number": -1, "data": [1.0]},
            "wanted a whole number starting_sample_number, got -1",
        ),
        ({"starting_sample_number": 0, "data": [True]}, "wanted numbers, got [True]"),
        ({"starting_sample_number": 0, "data": [1.0], "size": 2}, "holds 1 values, its size is 2"),
    ],
)
def test_a_dataset_of_the_relay_that_makes_no_sense_is_named(dataset, reason):
    relay = PandaRelay(PositionsConfig(**RELAY))
    datasets = {Y: dataset, X: {"starting_sample_number": 0, "data": [1.0]}}
    with pytest.raises(DocumentError) as refusal:
        relay.decode([json.dumps({"msg_type": "data", "frame_number": 0, "datasets": datasets}).encode()])
    assert f"dataset {Y} of the PandA's relay" in str(refusal.value)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        ([2], "1 of 3 messages of the PandA's relay were lost"),
        ([], ""),
        ([0, 1], ""),
        ([0, 1, 3], "1 of 3 messages"),
    ],
    ids=["one", "none", "joined", "joined, and one"],
)
def test_the_relay_says_how_many_of_its_messages_were_lost(caplog, lacking, told):
    """Message 0 is the start, 1 to 3 have data: a run that was joined has lost what came since."""
    relay, sent = PandaRelay(PositionsConfig(**RELAY)), [0]
    page = {"seq_num": [1], "data": {Y: [0.5], X: [4.0]}}
    documents = [("start", {}), *[("event_page", page)] * 3, ("stop", {})]
    messages = [message for one in documents for message in relay_messages(*one, (Y, X), (Y, X), sent)]
    messages = [message for k, message in enumerate(messages) if k not in lacking]
    with caplog.at_level(logging.WARNING):
        for message in messages:
            relay.decode([message])
    assert (told in caplog.text) if told else not caplog.records
