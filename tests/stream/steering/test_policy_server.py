import msgspec
import numpy as np
import pytest

from stream.steering.policy_client import PolicyClient, Questions
from stream.steering.policy_server import PolicyDoor
from stream.wire.codec import decode, encode
from stream.wire.handshake import greeting
from stream.wire.messages import Command, Recommendation, Reject, Stop, Welcome
from stream.wire.sockets import Endpoint, Socket, wait_for_message
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.policies import AXES, image, policy

HERE = Endpoint(address="tcp://127.0.0.1:*", bind=True)
NOTHING = np.zeros((0, 2))


@pytest.fixture
def clock():
    return Clock(0.0)


@pytest.fixture
def table(clock):
    """A client and the socket of whoever answers it."""
    with Socket("ROUTER", HERE) as socket:
        client = PolicyClient(socket.address, clock=clock)
        yield client, socket
        client.close()


def asked(socket):
    """The next question on the socket, as [plan, parts]; greetings are passed over."""
    while True:
        parts = socket.receive(5.0)
        assert parts is not None
        message, arrays = decode(parts[1:])
        if type(message).__name__ == "Consult":
            return bytes(parts[0]), message, arrays


def answer(socket, plan, consult, points=NOTHING, **fields):
    values = {"run": consult.run, "question": consult.question, "sequence": consult.after + 1, **fields}
    socket.send([plan, *encode(Recommendation(**values), [points])], 5.0)


def heard(client):
    """What comes of the next message for the client."""
    assert wait_for_message([client._connection.open()], 5.0)  # `poll` is to take it, and this one only
    return client.poll()


def test_a_plan_and_a_policy_talk_over_a_real_socket(table):
    client, socket = table
    steers = policy()
    steers.look(image())
    door = PolicyDoor(steers, "run", lambda: 0.0)
    measured = NOTHING
    for turn in range(3):
        client.ask(measured, 7)
        advice = None
        while advice is None:
            if (parts := socket.receive(0.05)) is not None:
                for reply in door.exchange([parts]):
                    socket.send(reply, 5.0)
            advice = client.poll()
        assert (advice.recommendation.sequence, advice.recommendation.n_measured) == (turn, len(measured))
        assert len(advice.points) == 7
        assert client.complaint() == ""
        measured = np.concatenate([measured, advice.points])
    assert steers.n_measured == 14


def test_only_a_plan_whose_key_is_allowed_is_advised(keys):
    with Socket("ROUTER", keys.door()) as socket:
        client, stranger = (
            PolicyClient(socket.address, key=key, peers=keys.server_public, clock=Clock(0.0))
            for key in (keys.client, keys.stranger)
        )
        stranger.ask(NOTHING, 3)
        client.ask(NOTHING, 4)
        plan, consult, _ = asked(socket)
        assert consult.n_points == 4
        assert socket.receive(0.1) is None
        answer(socket, plan, consult)
        assert heard(client).recommendation.sequence == 0
        assert stranger.poll() is None
        stranger.close()
        client.close()


def test_a_policy_that_was_started_anew_goes_on_above_the_plans_high_water(table):
    client, socket = table
    for sequence in (0, 1, 2):
        client.ask(NOTHING, 3)
        plan, consult, _ = asked(socket)
        assert consult.after == sequence - 1
        door = PolicyDoor(policy(), "run", lambda: 0.0)
        message, _ = decode(door.exchange([[plan, *encode(consult, [NOTHING])]])[0][1:])
        assert message.sequence == sequence
        answer(socket, plan, consult)
        assert heard(client).recommendation.sequence == sequence


def test_what_is_frozen_foreign_late_or_garbage_is_not_believed(table):
    client, socket = table
    client.ask(NOTHING, 3)
    plan, first, _ = asked(socket)
    answer(socket, plan, first, sequence=5)
    assert heard(client).recommendation.sequence == 5
    client.ask(NOTHING, 3)
    _, second, _ = asked(socket)
    answer(socket, plan, second, sequence=5)
    assert heard(client) is None
    assert client.complaint().startswith("frozen")
    answer(socket, plan, second, run="another")
    assert heard(client) is None
    assert client.complaint().startswith("foreign")
    answer(socket, plan, first, sequence=6)
    assert heard(client) is None
    assert client.complaint().startswith("late")
    for parts in (
        [b"\xff\xfe"],
        [b""],
        encode(Stop()),
        encode(Recommendation(run="", question=0, sequence=0)),
    ):
        socket.send([plan, *parts], 5.0)
        assert heard(client) is None
        assert client.complaint().startswith("garbage")
    for points in (np.zeros((2, 3)), np.zeros(4), np.zeros((2, 2), np.float32)):
        answer(socket, plan, second, points=points, sequence=7)
        assert heard(client) is None
        assert client.complaint().startswith("garbage")
    answer(socket, plan, second, sequence=6)
    assert heard(client).recommendation.sequence == 6


def test_the_age_of_an_answer_counts_from_its_question(table, clock):
    client, socket = table
    client.ask(NOTHING, 3)
    plan, consult, _ = asked(socket)
    clock.now = 2.5
    answer(socket, plan, consult)
    assert heard(client).age_s == 2.5


def test_nobody_there_costs_nothing():
    client = PolicyClient("tcp://127.0.0.1:9")
    for _ in range(20):
        client.ask(NOTHING, 3)
        assert client.poll() is None
    assert client.complaint() == ""
    client.close()


def test_the_door_refuses_strangers_and_survives_garbage():
    door = PolicyDoor(policy(), "run", lambda: 0.0)
    consult = Questions(lambda: 0.0).next(4)
    infinite = encode(consult, [np.array([[np.inf, 0.0]])])
    for parts in ([], [b"\x00"], encode(Stop()), encode(consult), encode(consult, [np.zeros(3)]), infinite):
        (reply,) = door.exchange([[b"plan", *parts]])
        assert isinstance(decode(reply[1:])[0], Reject)
    old = msgspec.structs.replace(greeting("plan"), schema="older")
    kinds = [
        type(decode(door.exchange([[b"p", *encode(hello)]])[0][1:])[0]) for hello in (old, greeting("plan"))
    ]
    assert kinds == [Reject, Welcome]


def test_a_blind_policy_recommends_nothing():
    door = PolicyDoor(policy(), "run", lambda: 4.0)
    consult = Questions(lambda: 0.0).next(4)
    message, (points,) = decode(door.exchange([[b"plan", *encode(consult, [NOTHING])]])[0][1:])
    assert len(points) == 0
    assert message.reasons == ("blind: the pipeline has been silent for 4.0 s",)


def test_who_holds_or_stops_the_run_is_told_by_name():
    door = PolicyDoor(policy(), "run", lambda: 0.0)

    def hears(message, *arrays):
        door.exchange([[b"x", *encode(message, arrays)]])
        return door.stage_state.level, door.stage_state.text

    assert (door.stage_state.level, door.stage_state.text) == ("ok", "waiting for a plan")
    level, text = hears(Questions(lambda: 0.0).next(4), NOTHING)
    assert (level, text.partition(":")[0]) == ("ok", "survey")
    assert hears(Command(deed="hold", by="anna")) == ("warning", "held by anna")
    assert hears(Command(deed="resume", by="ben"))[0] == "ok"
    assert hears(Command(deed="stop", by="ben")) == ("warning", "stopped by ben")
    assert door.news() == ["held by anna", "resumed by ben", "stopped by ben"]
    assert door.news() == []


def test_a_pixel_of_the_image_has_the_motor_position_that_steering_takes():
    shown = image(motors=AXES.on_wire)
    pixels = np.array([[3, 200], [-7, 0]])
    np.testing.assert_allclose(shown.motor_positions(pixels), AXES.positions(pixels))
    with pytest.raises(ValueError, match="does not say what motor positions"):
        image().motor_positions(pixels)


def test_another_plan_begins_a_new_scan():
    steers = policy()
    door = PolicyDoor(steers, "run", lambda: 0.0)
    for _ in range(2):
        consult = Questions(lambda: 0.0).next(4)
        door.exchange([[b"plan", *encode(consult, [np.zeros((3, 2))])]])
        assert steers.n_measured == 3
    assert steers.n_measured == 3
