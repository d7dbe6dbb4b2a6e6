import contextlib
import logging
import threading

import numpy as np
import pytest

from stream.record.scan import Scan, State
from stream.stages.link import Link, NoticeHandler, StageContext
from stream.stages.loop import StageRefusedError, run_stage
from stream.stages.stage import Inlet
from stream.wire.codec import ProtocolError, decode, encode
from stream.wire.handshake import answer_to
from stream.wire.messages import Hello, Notice, Progress, Ready, Reject, Stop, Welcome
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.stream.scans import close, make_scan, record, states
from tests.helpers.stream.workers import Steps

PATIENCE_S = 5.0
ANY = Endpoint(address="tcp://127.0.0.1:*", bind=True)


class Supervisor:
    """The other end of every link, driven by the test."""

    def __init__(self, context):
        self._socket = Socket("ROUTER", context.local("control", bind=True))
        self._client = b""

    def hears(self, kind):
        """Return the next message of this kind; others are passed over."""
        while (parts := self._socket.receive(timeout_s=PATIENCE_S)) is not None:
            self._client, (message, _) = bytes(parts[0]), decode(parts[1:])
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came")

    def says(self, message):
        self._socket.send([self._client, *encode(message)])

    def welcomes(self):
        hello = self.hears(Hello)
        welcome = answer_to(hello, "run-7")
        assert welcome == Welcome(run_id="run-7")
        self.says(welcome)
        return hello

    def close(self):
        self._socket.close()


@pytest.fixture
def context(run_folder):
    (run_folder / "scans").mkdir()
    return StageContext(scans=run_folder / "scans", rendezvous=run_folder)


@pytest.fixture
def supervisor(context):
    it = Supervisor(context)
    yield it
    it.close()


@contextlib.contextmanager
def running(build, context, name="subscriber"):
    """Run what `build` makes beside the test; it returns before the end, and the list has what it raised."""
    raised = []

    def run():
        try:
            run_stage(name, build, context)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield raised
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the stage did not end"


class Echo:
    """A source that counts what comes in and says when it is closed."""

    def __init__(self, *inlet):
        self.inlet = Inlet("PULL", inlet, 1000) if inlet else None
        self.n_messages, self.is_closed = 0, False

    def handle(self, messages):
        self.n_messages += len(messages)

    def idle(self, now):
        pass

    def close(self):
        self.is_closed = True

    def progress(self):
        return "0000-series", {"messages": self.n_messages}


def test_a_stage_greets_says_that_it_is_ready_and_ends_when_told(context, supervisor):
    stage = Echo()
    with running(lambda: stage, context) as raised:
        assert supervisor.welcomes().role == "subscriber"
        assert supervisor.hears(Ready) == Ready(stage="subscriber")
        supervisor.says(Stop())
    assert raised == []
    assert stage.is_closed


def test_a_source_handles_what_comes_and_reports_it(context, supervisor):
    with running(lambda: Echo(ANY), context):
        supervisor.welcomes()
        address = supervisor.hears(Ready).address
        with Socket("PUSH", Endpoint(address=address)) as push:
            for _ in range(200):
                assert push.send([b"x"], timeout_s=PATIENCE_S)
            while supervisor.hears(Progress).counts["messages"] != 200:
                pass
        supervisor.says(Stop())


def test_a_source_that_never_rests_hears_that_it_is_to_stop(context, supervisor):
    stage, is_over = Echo(ANY), threading.Event()

    def flood(address):
        with Socket("PUSH", Endpoint(address=address)) as push:
            while not is_over.is_set():
                push.send([b"x"], timeout_s=0.01)

    with running(lambda: stage, context):
        supervisor.welcomes()
        flooding = threading.Thread(target=flood, args=(supervisor.hears(Ready).address,))
        flooding.start()
        while supervisor.hears(Progress).counts["messages"] < 1000:
            pass
        supervisor.says(Stop())
    is_over.set()
    flooding.join(PATIENCE_S)
    assert stage.is_closed


def test_a_supervisor_that_refuses_is_obeyed_and_quoted(context, supervisor, caplog):
    with running(Echo, context) as raised:
        supervisor.hears(Hello)
        supervisor.says(Reject(reason="another version"))
    [error] = raised
    assert isinstance(error, ProtocolError)
    assert str(error).startswith("subscriber is refused at ipc://")
    assert str(error).endswith("control: another version")
    caplog.clear()


def test_without_a_supervisor_a_stage_says_where_it_looked(context, monkeypatch):
    monkeypatch.setattr("stream.stages.link.GREETING_TIMEOUT_S", 0.05)
    with Link(context, "inference") as link, pytest.raises(ProtocolError, match=str(context.rendezvous)):
        link.greet()


@pytest.mark.allow_error_log
def test_a_stage_that_fails_says_why_and_raises(context, supervisor):
    class Failing(Echo):
        def idle(self, now):
            raise RuntimeError("out of memory")

    with running(Failing, context) as raised:
        supervisor.welcomes()
        notice = supervisor.hears(Notice)
    assert (notice.stage, notice.level) == ("subscriber", logging.ERROR)
    assert notice.text == "RuntimeError: out of memory"
    assert isinstance(raised[0], RuntimeError)


def test_a_stage_is_built_while_the_supervisor_waits_and_refuses_what_it_cannot_be_built_from(
    context, supervisor
):
    def build():
        raise FileNotFoundError("no weights at here")

    with running(build, context) as raised:
        assert supervisor.welcomes().role == "subscriber"
    [error] = raised
    assert isinstance(error, StageRefusedError)
    assert str(error) == "no weights at here"


def test_a_service_runs_until_it_is_told_to_stop(context, supervisor):
    class Page:
        def run(self, link):
            link.ready("http://here")
            while not link.is_stopped:
                link.wait(PATIENCE_S)

    with running(Page, context, "viewer") as raised:
        assert supervisor.welcomes().role == "viewer"
        assert supervisor.hears(Ready) == Ready(stage="viewer", address="http://here")
        supervisor.says(Stop())
    assert raised == []


class InferenceSteps(Steps):
    name = "inference"
    inputs = ("subscriber",)
    waits_for = ()
    deadline_s = 60.0


def test_a_worker_works_on_scans_and_reports_them(context, supervisor):
    stage, scan = InferenceSteps(), make_scan(context.scans)
    with running(lambda: stage, context, "inference"):
        supervisor.welcomes()
        supervisor.hears(Ready)
        record(scan, np.arange(4))
        while supervisor.hears(Progress) != Progress(
            stage="inference", scan="0000-series", counts={"batches": 1}
        ):
            pass
        record(scan, [4])
        close(scan, "subscriber")
        while not Scan(scan.folder).count("inference", "closed"):
            supervisor.hears(Progress)
        supervisor.says(Stop())
    assert stage.batches == [[0, 1, 2, 3], [4]]


def test_a_worker_that_is_stopped_marks_what_it_leaves(context, supervisor):
    stage, scan = InferenceSteps(), make_scan(context.scans)
    with running(lambda: stage, context, "inference"):
        supervisor.welcomes()
        supervisor.hears(Ready)
        record(scan, np.arange(6))
        while not stage.batches:
            supervisor.hears(Progress)
        supervisor.says(Stop())
    assert states(scan, "inference").tolist() == [State.DONE] * 4 + [State.UNFINISHED] * 2


def test_the_bell_of_a_stage_wakes_those_who_listen(context, supervisor):
    with Link(context, "subscriber") as ringing, Link(context, "inference") as waiting:
        waiting.listen_to(["subscriber"])
        is_awake = threading.Event()

        def ring():
            number = 0
            while not is_awake.wait(0.01):  # until the subscription has arrived
                number += 1
                ringing.report("0000-series", {"n": number}, now=0.0)

        bell = threading.Thread(target=ring)
        bell.start()
        waiting.wait(PATIENCE_S)
        is_awake.set()
        bell.join()
        woken = waiting._bells
        assert woken.receive() is None, "what rang has been taken"


def test_the_bell_is_silent_while_nothing_changes(context, supervisor):
    with Link(context, "subscriber") as link, Socket("SUB", context.local("subscriber.bell")) as listener:
        number = 0
        while listener.receive(timeout_s=0.01) is None:  # until the subscription has arrived
            number += 1
            link.report("0000-series", {"n": number}, now=0.0)
        while listener.receive(timeout_s=0.01) is not None:
            pass
        for _ in range(10):
            link.report("0000-series", {"n": number}, now=0.0)
        link.report("0000-series", {"n": number + 1}, now=0.0)
        assert decode(listener.receive(timeout_s=PATIENCE_S))[0] == Progress(
            stage="subscriber", scan="0000-series"
        )
        assert listener.receive(timeout_s=0.01) is None


def test_the_supervisor_hears_a_few_times_a_second_and_always_the_last(context, supervisor):
    with Link(context, "subscriber") as link:
        for tick in range(101):
            link.report("0000-series", {"n": tick}, now=tick / 100)
        link.report("0000-series", {"n": 101}, now=1.0, force=True)
    heard = []
    while not heard or heard[-1] != 101:
        heard.append(supervisor.hears(Progress).counts["n"])
    assert heard[0] == 0
    assert len(heard) <= 7
    assert heard == sorted(heard)


def test_warnings_of_a_stage_reach_the_supervisor(context, supervisor):
    with Link(context, "inference") as link:
        handler = NoticeHandler(link)
        log = logging.getLogger("test.notices")
        log.addHandler(handler)
        log.info("not this")
        elsewhere = threading.Thread(target=log.warning, args=("nor this: the socket is not its own",))
        elsewhere.start()
        elsewhere.join()
        log.warning("nor this: who raised it reports it", exc_info=ValueError("broken"))
        log.warning("frame %d is late", 7)
        log.removeHandler(handler)
        assert supervisor.hears(Notice) == Notice(
            stage="inference", level=logging.WARNING, text="frame 7 is late"
        )


@pytest.mark.parametrize(
    ("inputs", "begins_last", "wakers"),
    [
        (("subscriber", "positions", "inference"), False, {"positions", "inference", "refinement"}),
        (("subscriber", "positions"), False, {"subscriber", "positions", "refinement"}),
        (("stitcher",), True, set()),
    ],
    ids=["behind the network", "without a network", "last of all"],
)
def test_a_stage_is_woken_by_those_that_may_have_what_it_lacks(
    context, supervisor, monkeypatch, inputs, begins_last, wakers
):
    heard = []
    monkeypatch.setattr(Link, "listen_to", lambda self, stages: heard.extend(stages))
    worker = Steps()
    worker.inputs = inputs
    if begins_last:
        worker.begins_last = True
    with running(lambda: worker, context):
        supervisor.welcomes()
        supervisor.hears(Ready)
        supervisor.says(Stop())
    assert set(heard) == wakers
