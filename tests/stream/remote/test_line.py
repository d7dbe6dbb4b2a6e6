"""The line of a worker to its run: silence, refusal, another run."""

import threading

import pytest

from stream.remote.asking import WINDOW, Asker
from stream.remote.line import FIRST_S, GREETINGS_ALIKE, MOST_SILENCE_S, SILENCE_S, Line, work_for
from stream.remote.messages import DECODER, DIALECT, AskSetup, Setup, Taken
from stream.wire.codec import ProtocolError, decode_with, encode
from stream.wire.handshake import rejection
from stream.wire.messages import Hello, Welcome
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.stream.clock import Clock


@pytest.fixture
def server(run_folder):
    with Socket("ROUTER", Endpoint(address=f"ipc://{run_folder}/door", bind=True)) as socket:
        yield socket


def at(server):
    return Endpoint(address=server.address)


def heard_by(server):
    """What the server hears next: who says it, and what."""
    parts = server.receive(5.0)
    assert parts is not None, "nothing came"
    return bytes(parts[0]), decode_with(DECODER, parts[1:])[0]


def test_questions_go_out_in_a_window_and_all_that_are_open_again_on_a_new_line():
    asker, answered = Asker(), []
    for _ in range(WINDOW + 3):
        asker.ask(AskSetup(), lambda answer, arrays: answered.append(answer.question))
    first = [message.question for message, _ in asker.due()]
    assert first == list(range(WINDOW)) and not asker.due()
    asker.take(Taken(question=2), [])
    assert [message.question for message, _ in asker.due()] == [WINDOW]
    asker.ask_again()
    assert [message.question for message, _ in asker.due()] == [0, 1, *range(3, WINDOW + 1)]
    for number in (2, 2, 5, 99):  # answered already, or never asked
        asker.take(Taken(question=number), [])
    assert answered == [2, 5]


def test_a_line_that_falls_silent_is_opened_anew_under_the_same_name(server):
    clock = Clock()
    line = Line(at(server), "inference", clock)
    line.open()
    who, hello = heard_by(server)
    assert isinstance(hello, Hello) and (hello.protocol, hello.schema) == DIALECT
    server.send([who, *encode(Welcome(run_id="run-7"))])
    while line.hear() is None:
        line.open().has_room(0.001)
    assert line.is_welcome
    clock.now += 10 * SILENCE_S
    line.look_after(is_waiting=False)  # nothing is owed
    assert line.is_welcome
    line.look_after(is_waiting=True)
    assert not line.is_welcome
    line.open()
    assert heard_by(server)[0] == who
    line.close()


def test_work_that_keeps_it_from_listening_is_no_silence_of_the_run(server):
    clock = Clock()
    line = Line(at(server), "inference", clock)
    line.open()
    clock.now += 2 * FIRST_S
    line.listened()
    line.look_after(is_waiting=True)
    assert heard_by(server) and line.open() is not None
    clock.now += 2 * FIRST_S
    line.look_after(is_waiting=True)
    line.open()
    assert isinstance(heard_by(server)[1], Hello)
    line.close()


class Work:
    """A worker that has one question."""

    def __init__(self, asker, answers):
        self.is_closed = False
        asker.ask(AskSetup(), lambda answer, arrays: answers.append(answer))

    def turn(self):
        return False

    def close(self):
        self.is_closed = True


def test_the_next_run_at_the_address_gets_a_worker_of_its_own_and_a_refusal_ends_it(server):
    answers, workers, told = [], [], []

    def serve():
        for run_id in ("run-7", "run-8"):
            who, hello = heard_by(server)
            assert isinstance(hello, Hello)
            server.send([who, *encode(Welcome(run_id=run_id))])
            who, question = heard_by(server)
            setup = Setup(question=question.question, settings=run_id, files=())
            server.send([who, *encode(setup, [])])
            server.send([who, *encode(rejection("greet first"))])  # as a gateway that is started anew
        who, _ = heard_by(server)
        server.send([who, *encode(rejection("another version"))])

    thread = threading.Thread(target=serve)
    thread.start()

    def make(asker):
        workers.append(Work(asker, answers))
        return workers[-1]

    with pytest.raises(ProtocolError, match="refuses this worker: another version"):
        work_for(at(server), "inference", make, tell=told.append)
    thread.join()
    assert [answer.settings for answer in answers] == ["run-7", "run-8"]
    assert all(worker.is_closed for worker in workers) and len(workers) == 2
    assert [text.split()[3] for text in told] == ["run-7", "run-8"]


def test_nobody_there_is_said_after_the_time_one_has_for_it(run_folder):
    endpoint = Endpoint(address=f"ipc://{run_folder}/nobody")
    with pytest.raises(TimeoutError, match=r"nobody has answered at .* for 0.2 s"):
        work_for(endpoint, "inference", lambda asker: Work(asker, []), tell=print, patience_s=0.2)


def test_a_run_that_is_slow_to_answer_a_greeting_gets_more_and_more_time(server):
    clock = Clock()
    line = Line(at(server), "inference", clock)

    def longest_wait():
        line.open()
        began = clock.now
        while line.is_open:
            clock.now += 0.05
            line.look_after(is_waiting=False)
        return clock.now - began

    waits = [longest_wait() for _ in range(2 * GREETINGS_ALIKE + 1)]
    assert waits[GREETINGS_ALIKE] > 1.9 * waits[0]
    assert waits[-1] > waits[0] and max(waits) <= MOST_SILENCE_S + 0.1
