"""Simulated devices, a RunEngine that watches its loop, a policy that may misbehave: for tests of plans."""

import asyncio
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
from bluesky import RunEngine
from ophyd_async.core import AsyncStatus
from scipy.spatial import cKDTree

from launch.beamline.flown import FlyingDetector, FlyingStage
from launch.plans.adaptive import adaptive_fly_ptycho, adaptive_ptycho
from stream.steering.control_client import SteeringClient
from stream.steering.policy_client import PolicyClient
from stream.steering.policy_server import PolicyDoor
from stream.wire.codec import decode, encode
from stream.wire.messages import Consult
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.stream.policies import LIMITS, policy

HERE = Endpoint(address="tcp://127.0.0.1:*", bind=True)
LOW, HIGH = LIMITS[0]
PLANNED = LOW + 1 + (HIGH - LOW - 2) * np.argwhere(np.ones((6, 6))) / 5
BATCH = 6
BLOCKED_S = 0.05  # longest that the loop of a RunEngine may be blocked


class Motor:
    parent = None

    def __init__(self, name):
        self.name, self.position = name, 0.0
        self.hints = {"fields": [name]}

    def set(self, value):
        self.position = value
        return AsyncStatus(asyncio.sleep(0))

    def read(self):
        return {self.name: {"value": self.position, "timestamp": 0.0}}

    def describe(self):
        return {self.name: {"source": "test", "dtype": "number", "shape": []}}


class Detector(Motor):
    def __init__(self, on_trigger=lambda n: None):
        super().__init__("detector")
        self.n, self._on_trigger = 0, on_trigger

    def trigger(self):
        self.n += 1
        self._on_trigger(self.n)
        return AsyncStatus(asyncio.sleep(0))


class Telling(Detector):
    """A detector at whose triggers persons say things; the trigger waits until they are answered."""

    def __init__(self, at):
        super().__init__()
        self._at = at

    def trigger(self):
        self.n += 1
        return AsyncStatus(asyncio.to_thread(self._at.get(self.n, lambda: None)))


class Run:
    """A RunEngine, the documents it made, and how long its loop was ever blocked."""

    def __init__(self):
        self.engine, self.documents, self.blocked_s = RunEngine(), [], 0.0
        self.engine.subscribe(lambda name, document: self.documents.append((name, document)))

    def when(self, source, react):
        """Calls `react` in a thread of its own when a decision of `source` is written, the first time."""

        def look(name, document):
            if document.get("data", {}).get("decision_source") == source and not threads:
                threads.append(threading.Thread(target=react))
                threads[0].start()

        threads = []
        self.engine.subscribe(look, "event")

    def __call__(self, plan):
        heart = asyncio.run_coroutine_threadsafe(self._beat(), self.engine.loop)
        try:
            return self.engine(plan)
        finally:
            heart.cancel()

    async def _beat(self, period_s=0.005):
        while True:
            before, waited_s = time.perf_counter(), waited_for_cores_s()
            await asyncio.sleep(period_s)
            late_s = time.perf_counter() - before - period_s
            # On a busy machine a thread may hold a lock that it got, but not a core.
            self.blocked_s = max(self.blocked_s, late_s - max(waited_for_cores_s() - waited_s, 0.0))

    def events(self, stream):
        names = {d["uid"]: d["name"] for name, d in self.documents if name == "descriptor"}
        return [
            d["data"] for name, d in self.documents if name == "event" and names[d["descriptor"]] == stream
        ]

    @property
    def points(self):
        return np.array([[data["y"], data["x"]] for data in self.events("primary")])

    @property
    def decisions(self):
        return [
            {key.removeprefix("decision_"): value for key, value in data.items()}
            for data in self.events("decisions")
        ]

    @property
    def story(self):
        """Sources of decisions and "point" for exposures, in the order of the documents."""
        names = {d["uid"]: d["name"] for name, d in self.documents if name == "descriptor"}
        events = [d for name, d in self.documents if name == "event"]
        return [d["data"].get("decision_source", "point") for d in events if d["descriptor"] in names]

    @property
    def exit_status(self):
        return [d["exit_status"] for name, d in self.documents if name == "stop"]


def waited_for_cores_s():
    """How long the threads of this process have been ready to run while other processes had the cores."""
    waited_ns = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread has ended
            waited_ns += int(file.read_text().split()[1])
    return waited_ns * 1e-9


def least_blocked_s(runs, n_tries=3):
    """Longest time for which the loop of a run was blocked: the best of some calls that return a `Run`."""
    blocked_s = []
    for _ in range(n_tries):
        blocked_s.append(runs().blocked_s)
        if blocked_s[-1] <= BLOCKED_S:
            break
    return min(blocked_s)


@contextmanager
def answering(misbehave=lambda turn, consult, parts: parts, steers=None, anew=None):
    """The address of a real policy whose answers may be spoiled; None ends it, `anew` exchanges it."""
    stopping, bound = threading.Event(), Socket("ROUTER", HERE)

    def serve():
        turn, door = 0, PolicyDoor(steers or policy(), "run", lambda: 0.0)
        while not stopping.is_set():
            if anew is not None and anew.is_set():
                door = PolicyDoor(policy(), "run", lambda: 0.0)
                anew.clear()
            parts = bound.receive(0.02)
            if parts is None:
                continue
            message, _ = decode(parts[1:])
            *others, reply = door.exchange([parts]) or [None]
            if isinstance(message, Consult):
                reply = misbehave(turn, message, reply)
                turn += 1
                if reply is None:
                    break
            for message in filter(None, (*others, reply)):
                bound.send(message)
        bound.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield bound.address
    finally:
        stopping.set()
        thread.join()


def respoilt(reply, points=None, **fields):
    """An answer with other fields or points."""
    message, arrays = decode(reply[1:])
    message = msgspec.structs.replace(message, arrays=(), **fields)
    return [reply[0], *encode(message, arrays if points is None else [points])]


def said(address, deed, region=None, by="lab"):
    """How the steering stands after a person has said something."""
    with SteeringClient(address) as person:
        return person.say(deed, region, by)


def step(advisor, detector=None, **options):
    values = {
        "fallback": PLANNED,
        "limits": LIMITS,
        "batch": BATCH,
        "max_points": 60,
        "wait_s": 0.2,
        **options,
    }
    return adaptive_ptycho([detector or Detector()], [Motor("y"), Motor("x")], advisor, **values)


def is_covered(points):
    return bool((cKDTree(points).query(PLANNED)[0] <= 0.25 * (HIGH - LOW) / 5).all())


class Stage(FlyingStage):
    def __init__(self):
        super().__init__(np.zeros((0, 2)), rate_hz=400.0)
        self.flown = []

    def kickoff(self):
        self.flown.append(self.trajectory_um)
        return super().kickoff()


class Camera(FlyingDetector):
    def __init__(self):
        super().__init__(lambda: None)
        self.n_frames = 0

    def prepare(self, n_frames):
        self.n_frames = n_frames
        return AsyncStatus(asyncio.sleep(0))


@contextmanager
def flying(advisor, **options):
    """A plan that flies, and its stage."""
    stage, camera = Stage(), Camera()
    values = {"fallback": PLANNED, "limits": LIMITS, "batch": 12, "max_points": 60, "wait_s": 0.3, **options}
    try:
        yield adaptive_fly_ptycho([camera], stage, advisor, flush_period=0.02, **values), stage
    finally:
        camera.close()


def fly(run, advisor, **options):
    """Where a flown scan has been, (point, 2)."""
    with flying(advisor, **options) as (plan, stage):
        run(plan)
    return np.concatenate(stage.flown)


class AskingPlan:
    """A plan that asks again and again, in a thread of its own, and does what it hears."""

    def __init__(self, address):
        self.client, self._stopping = PolicyClient(address), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.points, self.n_left = None, 27

    def _run(self):
        while not self._stopping.wait(0.02) and not self.client.heard.stopper:
            self.client.ask(np.zeros((0, 2)), 9)
            for _ in range(50):
                if (advice := self.client.poll()) is not None:
                    self.points = advice.points
                    break
                self._stopping.wait(0.02)
            source = "person" if self.client.heard.held else "agent"
            self.client.tell(source, "survey: not seen everywhere", 9, self.n_left)
        self.client.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stopping.set()
        self._thread.join()


def until(condition):
    """Returns when the condition has come true."""
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("the condition did not come true")
