"""Workers on a cluster as the run sees them, on a cluster that only says what a test makes it say."""

import pytest

from launch.on_ray.actor import Seen
from launch.on_ray.cluster import LostError, Needs, own_address_towards
from launch.on_ray.placement import AGAIN_S, GONE_S, Place, Placement, needs_of, seen_from_nodes
from launch.on_ray.versions import why_not_connected, why_not_started

KEY, OTHER_KEY = "k" * 40, "o" * 40


class FakeActor:
    """Says what it was told to, again and again."""

    def __init__(self) -> None:
        self.says: Seen | Exception | None = None
        self.has_left = self.is_ended = False
        self._asked = ""

    def ask(self, method: str) -> None:
        self._asked = method

    def poll(self, method: str) -> object:
        asked, self._asked = self._asked or method, ""
        if asked == "leave":
            self.has_left = True
            return True
        if self.says is None:  # it answers later what it was asked now
            self._asked = asked
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def end(self) -> None:
        self.is_ended = True


class Stand:
    """A placement of two workers, and the clock."""

    def __init__(self) -> None:
        self.now, self.actors, self.let_in = 0.0, list[FakeActor](), list[tuple[str, str]]()
        places = [Place(f"placed-{number}", self._start) for number in (1, 2)]
        self.placement = Placement(
            places, let_in=lambda name, key: self.let_in.append((name, key)), clock=lambda: self.now
        )
        self.placement.turn()

    def _start(self) -> FakeActor:
        self.actors.append(FakeActor())
        return self.actors[-1]

    def after(self, seconds: float) -> str:
        self.now += seconds
        self.placement.turn()
        return self.placement.state()[0]


def seen(host: str, key: str = KEY, trouble: str = "") -> Seen:
    return Seen(host=host, pid=1, public_key=key, trouble=trouble)


def test_workers_count_once_they_have_said_that_they_work():
    stand = Stand()
    assert stand.after(1) == "0 of 2 workers are there; the others wait for room in the cluster"
    stand.actors[0].says = seen("gpu1")
    assert stand.after(1) == "1 of 2 workers are there, on gpu1; the others wait for room in the cluster"
    stand.actors[1].says = seen("gpu2")
    assert stand.after(1) == "2 of 2 workers are there, on gpu1, gpu2"
    assert stand.placement.state()[1] == "ok"


def test_each_key_with_which_a_worker_comes_is_let_in_once():
    stand = Stand()
    stand.actors[0].says = seen("gpu1")
    stand.after(1)
    stand.after(1)
    stand.actors[0].says = seen("gpu2", OTHER_KEY)  # Ray has started it again, elsewhere
    stand.after(1)
    assert stand.let_in == [("placed-1", KEY), ("placed-1", OTHER_KEY)]


def test_a_node_that_is_gone_is_not_there_before_ray_says_so_and_is_there_again_when_it_is_back():
    stand = Stand()
    for actor in stand.actors:
        actor.says = seen("gpu1")
    stand.after(1)
    stand.actors[1].says = None
    assert stand.after(GONE_S + 0.1) == "1 of 2 workers are there, on gpu1; the others do not answer"
    stand.actors[1].says = LostError("its node died")
    assert stand.after(1) == "1 of 2 workers are there, on gpu1: its node died"
    stand.actors[1].says = seen("gpu2", OTHER_KEY)
    assert stand.after(1) == "2 of 2 workers are there, on gpu1, gpu2"
    assert len(stand.actors) == 2


def test_an_actor_that_stays_lost_gives_its_place_to_another_one():
    stand = Stand()
    stand.actors[0].says = LostError("a node of the cluster has no ptychostream")
    stand.after(1)
    assert "no ptychostream" in stand.after(AGAIN_S)
    assert stand.actors[0].is_ended
    stand.after(1)
    assert len(stand.actors) == 3


def test_a_worker_whose_command_has_ended_is_not_there_and_says_why():
    stand = Stand()
    stand.actors[0].says = seen("gpu1", trouble="left with exit status 2: no CUDA")
    assert stand.after(1) == "0 of 2 workers are there: left with exit status 2: no CUDA"


def test_at_the_end_who_has_worked_may_leave_and_all_are_ended():
    stand = Stand()
    stand.actors[0].says = seen("gpu1")
    stand.after(1)
    stand.actors[0].says = None
    stand.after(1)
    stand.placement.close()
    assert [actor.has_left for actor in stand.actors] == [True, False]
    assert all(actor.is_ended for actor in stand.actors)


def test_workers_get_the_gpus_that_there_are_and_then_cores():
    gpus = {"CPU": 16.0, "GPU": 2.0}
    assert needs_of([gpus, gpus], 0, threads=4) == [Needs(gpus=1)] * 4
    assert needs_of([gpus], 3, threads=4) == [Needs(gpus=1)] * 2 + [Needs(cpus=4)]
    assert needs_of([gpus], 2, threads=4, n_others=1) == [Needs(gpus=1), Needs(cpus=4)]
    assert needs_of([{"CPU": 0.0}, {"CPU": 8.0}, {"CPU": 8.0}], 0, threads=4) == [Needs(cpus=4)] * 2


def test_nodes_connect_to_the_address_by_which_they_know_this_computer():
    assert seen_from_nodes("tcp://0.0.0.0:5812", "10.0.0.5") == "tcp://10.0.0.5:5812"
    assert seen_from_nodes("tcp://10.1.0.5:5812", "10.0.0.5") == "tcp://10.1.0.5:5812"
    assert seen_from_nodes("tcp://127.0.0.1:5812", "127.0.0.2") == "tcp://127.0.0.1:5812"
    with pytest.raises(ValueError, match=r"is of this computer alone, and .* 10\.0\.0\.5"):
        seen_from_nodes("tcp://127.0.0.1:5812", "10.0.0.5")


def test_the_own_address_is_that_of_the_network_which_leads_to_the_cluster():
    assert own_address_towards("127.0.0.1") == "127.0.0.1"


def test_versions_that_differ_are_named_in_one_sentence():
    error = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
        "This process on node 10.0.0.5 was started with:\n    Ray: 2.59.0\n    Python: 3.12.1\n"
    )
    assert why_not_connected("ray://head:10001", error) == (
        "ray://head:10001 runs Ray 2.60.0 on Python 3.11.7, and here are Ray 2.59.0 and Python 3.12.1: "
        "install the same on all nodes and here"
    )
    lacks = RuntimeError("The actor died ... ModuleNotFoundError: No module named 'launch'")
    assert "a node of the cluster has no ptychostream: install version" in why_not_started(lacks)
    other = RuntimeError("traceback ...\nValueError: gpu1 has ptychostream 0.2, and the run 0.1\n")
    assert (
        why_not_started(other) == "gpu1 has ptychostream 0.2, and the run 0.1: install the same on all nodes"
    )
