import subprocess
import sys

import msgspec
import numpy as np
import pytest
import zmq

from operators.geometry import Bounds
from stream.live.client import LiveReconstruction
from stream.live.image import LiveImage, TiledImage, TileMaps, checked_buffers
from stream.live.server import Door
from stream.wire.codec import ProtocolError, encode
from stream.wire.handshake import SILENCE_S
from stream.wire.messages import Ask, Hello, NoNews, ObjectUpdate, Progress, RunState, Welcome
from stream.wire.sockets import Endpoint, EndpointError, Socket, wait_for_message
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.fake_door import TILE_PX, FakeDoor
from tests.helpers.stream.scans import UPDATE


def picture(n_rows: int, n_columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (1 + rng.random((n_rows, n_columns)) + 1j * rng.random((n_rows, n_columns))).astype(np.complex64)


def wait_for(live: LiveReconstruction) -> LiveImage:
    image = live.poll(timeout_s=5.0)
    assert image is not None, "no image within 5 s"
    return image


def asks(door: FakeDoor) -> list[Ask]:
    return [message for message in door.heard if isinstance(message, Ask)]


def test_a_late_joiner_gets_the_whole_image():
    object_ = picture(40, 23)
    figures = msgspec.structs.replace(UPDATE.figures, version=2, coverage68=0.5, models={"abc": 12})
    with FakeDoor() as door, LiveReconstruction(door.address) as live:
        door.begin(figures.scan)
        door.publish(picture(40, 23, seed=1), origin=(-7, 5))
        door.publish(
            object_,
            origin=(-7, 5),
            path=[[1, 2], [3, 4]],
            **msgspec.structs.asdict(figures),
        )
        image = wait_for(live)
    np.testing.assert_array_equal(image.object, object_)
    assert (image.object.dtype, image.origin_px, image.age_s) == (np.complex64, (-7, 5), 0.0)
    assert image.coverage.all()
    assert np.all(image.photons == 100)
    np.testing.assert_allclose(image.sigma, 0.1)
    np.testing.assert_array_equal(image.path, [[1, 2], [3, 4]])
    assert {name: getattr(image, name) for name in figures.__struct_fields__} == msgspec.structs.asdict(
        figures
    )


def test_how_the_run_stands_comes_with_and_without_an_image_and_is_not_kept_in_silence():
    clock, state = Clock(), RunState(level="waiting", text="finding the probe: step 3 of at most 80, 2 s")
    with FakeDoor() as door, LiveReconstruction(door.address, clock=clock) as live:
        assert live.state is None
        door.state = state
        while live.state is None:
            live.poll()
        assert live.state == state
        door.begin("a")
        door.state = RunState(level="live", text="live")
        door.publish(picture(8, 8))
        while live.poll() is None:
            pass
        assert live.state == door.state
        clock.now += SILENCE_S + 1
        assert live.state is None


def test_tiles_that_changed_join_those_already_here_as_the_canvas_grows():
    small, grown = picture(TILE_PX, TILE_PX), np.zeros((3 * TILE_PX, 2 * TILE_PX), np.complex64)
    with FakeDoor() as door, LiveReconstruction(door.address) as live:
        door.begin("a")
        door.publish(small, origin=(0, 0))
        first = wait_for(live)
        grown[TILE_PX : 2 * TILE_PX, :TILE_PX] = small
        corner = picture(5, 7, seed=2)
        door.publish(corner, origin=(TILE_PX, TILE_PX), bounds=Bounds(-TILE_PX, 0, 2 * TILE_PX, 2 * TILE_PX))
        second = wait_for(live)
    grown[2 * TILE_PX : 2 * TILE_PX + 5, TILE_PX : TILE_PX + 7] = corner
    np.testing.assert_array_equal(second.object, grown)
    np.testing.assert_array_equal(second.coverage, grown != 0)
    np.testing.assert_array_equal(first.object, small)  # an image given away never changes
    assert asks(door)[0] == Ask()
    assert Ask(scan="a", after=1) in asks(door)


def test_a_new_series_begins_a_new_canvas():
    with FakeDoor() as door, LiveReconstruction(door.address, follow=True) as live:
        door.begin("a")
        door.publish(picture(20, 20), is_final=True)
        assert next(live).scan == "a"
        door.begin("b")
        other = np.zeros((20, 20), np.complex64)
        other[3:5, 4:9] = 2
        door.publish(other)
        image = next(live)
    assert image.scan == "b"
    np.testing.assert_array_equal(image.object, other)


def test_iteration_ends_after_the_final_image():
    with FakeDoor() as door, LiveReconstruction(door.address) as live:
        door.begin("a")
        door.publish(picture(8, 8), is_final=True)
        assert [image.is_final for image in live] == [True]


def test_a_slow_client_skips_to_the_newest_version():
    with FakeDoor() as door, LiveReconstruction(door.address) as live:
        door.begin("a")
        door.publish(picture(8, 8))
        assert next(live).version == 1
        for _ in range(5):
            door.publish(picture(8, 8))
        assert next(live).version == 6


def test_latest_never_returns_the_answer_to_an_old_question():
    with FakeDoor() as door, LiveReconstruction(door.address) as live:
        door.begin("a")
        door.publish(picture(8, 8))
        live.latest(5.0)
        live.latest(0.0)  # leaves a question open, which version 2 answers
        door.publish(picture(8, 8))
        # Without reading it: only the socket tells that an answer waits.
        assert wait_for_message([live._connection.open()], 5.0)
        door.publish(picture(8, 8))
        assert live.latest(5.0).version == 3


def test_latest_says_how_old_the_image_is_when_the_server_is_gone():
    clock = Clock()
    live = LiveReconstruction((door := FakeDoor()).address, clock=clock)
    with live:
        with door:
            door.begin("a")
            door.publish(picture(8, 8))
            while live.poll(0.0) is None:
                clock.now += 0.001
        clock.now += 60
        assert live.latest(0.0).age_s == pytest.approx(60)


@pytest.mark.parametrize("asks_before_the_restart", [True, False], ids=["silent", "refused"])
def test_a_server_started_anew_is_greeted_and_its_run_starts_from_a_snapshot(asks_before_the_restart):
    clock = Clock()
    old, new = picture(30, 30), picture(30, 30, seed=5)
    with LiveReconstruction((first := FakeDoor()).address, clock=clock) as live:
        with first:
            first.begin("a")
            hung_up = live._connection.open()._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            for _ in range(3):
                first.publish(old)
            while live.poll(0.0) is None:
                pass
            if asks_before_the_restart:
                live.poll(0.0)
                while len(asks(first)) < 2:
                    pass
        assert hung_up.poll(5000), "what the client says from now on, the old door does not hear"
        live._connection.open()._socket.disable_monitor()
        hung_up.close()
        with FakeDoor(first.address, run_id="second") as second:
            second.begin("a")
            second.publish(new)
            if asks_before_the_restart:
                clock.now += SILENCE_S + 0.1
            while (image := live.poll(0.0)) is None:
                pass
    assert isinstance(second.heard[0], Hello if asks_before_the_restart else Ask)
    assert (image.run_id, image.version) == ("second", 1)
    np.testing.assert_array_equal(image.object, new)


def test_the_same_image_is_not_given_again_after_a_new_connection():
    clock = Clock()
    with FakeDoor() as door, LiveReconstruction(door.address, clock=clock) as live:
        door.begin("a")
        door.publish(picture(8, 8))
        while live.poll(0.0) is None:
            pass
        live.close()
        n_asked = len(asks(door))
        while len(asks(door)) < n_asked + 2:  # the snapshot was asked for and answered
            assert live.poll(0.0) is None
        door.publish(picture(8, 8))
        while (image := live.poll(0.0)) is None:
            pass
    assert image.version == 2


def test_silence_is_measured_from_the_question_and_ends_in_a_new_greeting():
    clock = Clock()
    door = FakeDoor()
    with LiveReconstruction(door.address, clock=clock) as live:
        live.poll()
        door.turn(1.0)
        clock.now += 2.0
        assert live.silence_s == pytest.approx(2.0)
        while live.age_s > 0:  # Welcome is on its way
            assert live.poll() is None
        live.poll()
        while len(door.heard) < 2:
            door.turn(1.0)
        assert [type(message) for message in door.heard] == [Hello, Ask]
        clock.now += SILENCE_S + 0.1
        assert live.poll() is None
        assert live.age_s == pytest.approx(SILENCE_S + 0.1)
        assert live.poll() is None
        door.turn(1.0)
        assert [type(message) for message in door.heard] == [Hello, Ask, Hello]
        door.close()


def test_a_heartbeat_brings_the_counts_before_there_is_an_image():
    with FakeDoor() as door, LiveReconstruction(door.address) as live:
        door.counts, door.heartbeat_s = {"recorded": 5}, 0.0
        assert live.poll(0.3) is None
        assert live.counts == {"recorded": 5}


def test_nobody_answering_is_a_timeout_that_says_what_to_do():
    door = FakeDoor()
    door.close()
    with (
        LiveReconstruction(door.address, timeout_s=0.05) as live,
        pytest.raises(TimeoutError, match=rf"nobody has answered at {door.address} for .*is the pipeline"),
    ):
        next(live)
    with LiveReconstruction(door.address) as live, pytest.raises(TimeoutError, match="nobody"):
        live.latest(0.05)


def test_a_server_without_a_scan_is_not_taken_for_a_dead_one():
    with (
        FakeDoor() as door,
        LiveReconstruction(door.address) as live,
        pytest.raises(TimeoutError, match="has no image yet"),
    ):
        live.latest(0.3)


def test_a_refusal_says_why():
    with (
        FakeDoor(reject="install the same version") as door,
        LiveReconstruction(door.address) as live,
        pytest.raises(ProtocolError, match=r"refused: install the same version"),
    ):
        live.poll(5.0)


def test_an_address_other_machines_reach_needs_a_decision():
    with pytest.raises(EndpointError, match="CURVE"):
        LiveReconstruction("tcp://beamline-7:5810")
    LiveReconstruction("tcp://beamline-7:5810", insecure=True).close()


GOOD = [
    np.zeros((1, 2), np.int32),
    np.zeros((1, 4, 4), np.complex64),
    np.zeros((1, 4, 4), np.float32),
    np.zeros((1, 4, 4), np.float32),
    np.zeros((1, 4, 4), np.uint8),
    np.arange(3, dtype=np.int32),
    np.zeros((3, 2), np.float32),
]


def update(bounds=(0, 0, 4, 4), **fields):
    figures = msgspec.structs.replace(
        UPDATE.figures, **{"scan": "a", "version": 1, "is_final": False, **fields}
    )
    return ObjectUpdate(tile_px=4, bounds=bounds, figures=figures)


@pytest.mark.parametrize(
    ("message", "arrays", "complaint"),
    [
        (update(), GOOD[:6], "has 6 buffers"),
        (update(), [*GOOD[:4], np.zeros((1, 5, 4), np.uint8), *GOOD[5:]], "'source' of an image is"),
        (update(), [GOOD[0], GOOD[1].astype(np.complex128), *GOOD[2:]], "'object' of an image is"),
        (update(), [np.zeros((), np.int32), *GOOD[1:]], "'tiles' of an image is"),
        (update(), [*GOOD[:6], np.zeros((), np.float32)], "'path' of an image is"),
        (update(), [*GOOD[:5], GOOD[5].astype(float), GOOD[6]], "'frames' of an image is"),
        (update(), [*GOOD[:5], GOOD[5][::-1], GOOD[6]], "not in the order of their numbers"),
        (update(bounds=(0, 0, -1, 4)), GOOD, "bounds"),
        (update(bounds=(0, 0, 2**31, 2**31)), GOOD, "bounds"),
        (Progress(stage="x"), [], "got Progress"),
    ],
)
def test_what_is_not_an_image_is_refused_by_name(message, arrays, complaint):
    endpoint = Endpoint(address="tcp://127.0.0.1:*", bind=True)
    with Socket("ROUTER", endpoint) as server, LiveReconstruction(server.address) as live:
        live.poll()
        who = bytes(server.receive(timeout_s=5.0)[0])
        server.send([who, *encode(Welcome(run_id="r"))])
        server.send([who, *encode(message, arrays)])
        with pytest.raises(ProtocolError, match=complaint):
            live.poll(5.0)


def test_an_image_of_nothing_is_an_image():
    endpoint = Endpoint(address="tcp://127.0.0.1:*", bind=True)
    empty = [array[:0] for array in GOOD]
    with Socket("ROUTER", endpoint) as server, LiveReconstruction(server.address) as live:
        live.poll()
        who = bytes(server.receive(timeout_s=5.0)[0])
        server.send([who, *encode(Welcome(run_id="r"))])
        server.send([who, *encode(NoNews())])
        server.send([who, *encode(update(bounds=(0, 0, 0, 0), frames_seen=0), empty)])
        assert wait_for(live).object.shape == (0, 0)


def test_how_large_an_image_is_costs_none_of_its_pixels(monkeypatch):
    monkeypatch.delattr(TileMaps, "_put_together")
    message = update(bounds=(-2, 0, 3, 7))
    assert TiledImage(message).put(message, checked_buffers(message, GOOD)).shape == (5, 7)


def test_frames_that_are_new_join_the_path_in_the_order_of_the_scan():
    canvas = TiledImage(update())

    def put(version, numbers):
        new = [np.array(numbers, np.int32), np.array([[number, version] for number in numbers], np.float32)]
        message = update(version=version)
        return canvas.put(message, checked_buffers(message, [*GOOD[:5], *new])).path

    first = put(1, [4, 5, 9])
    assert put(2, [0, 7]).tolist() == [[0, 2], [4, 1], [5, 1], [7, 2], [9, 1]]
    assert first.tolist() == [[4, 1], [5, 1], [9, 1]], "an image does not change any more"
    after_a_restart = put(3, [0, 4, 5, 7, 9, 10])
    assert after_a_restart.tolist() == [[number, 3] for number in (0, 4, 5, 7, 9, 10)]


def test_the_client_needs_numpy_pyzmq_and_msgspec_only():
    code = (
        "import sys, stream.live.client; "
        "print(sorted({'torch', 'scipy', 'h5py', 'aiohttp', 'bluesky', 'operators'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_stitchers_door_and_the_client_understand_each_other():
    clock = Clock()
    versions = {"newest": 1}

    def find_news(scan, after):
        is_known = scan == "a" and after >= versions["newest"]
        return None if is_known else (update(version=versions["newest"]), GOOD)

    door = Door("run", find_news, clock)
    endpoint = Endpoint(address="tcp://127.0.0.1:*", bind=True)
    with Socket("ROUTER", endpoint) as server, LiveReconstruction(server.address, clock=clock) as live:

        def turn():
            image = live.poll()
            parts = server.receive(timeout_s=0.01)
            for reply in door.exchange([parts] if parts else []):
                server.send(reply)
            return image

        while (first := turn()) is None:
            pass
        clock.now += 0.5
        while live.age_s >= 0.5:  # until the heartbeat
            assert turn() is None
            clock.now += 0.1
        versions["newest"] = 2
        while (second := turn()) is None:
            pass
    assert (first.version, second.version) == (1, 2)


def test_silence_for_the_sake_of_keys_is_named(keys):
    def complaint(server, **own):
        with LiveReconstruction(server.address, timeout_s=0.2, **own) as live:
            with pytest.raises(TimeoutError) as silence:
                live.latest(0.2)
            return str(silence.value)

    with Socket("ROUTER", keys.door()) as server:
        stranger = {"key": keys.stranger, "peers": keys.server_public}
        assert "is silent to keys that it does not know" in complaint(server, **stranger)
        assert f"{keys.stranger.with_suffix('.key')} has to be its public key" in complaint(
            server, key=keys.client, peers=keys.stranger.with_suffix(".key")
        )
        assert "with holders of CURVE keys only, and no `key` and `peers` are given" in complaint(server)
    with Socket("ROUTER", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as server:
        assert "without encryption only, and `key` and `peers` are given" in complaint(server, **stranger)
        assert "is the pipeline running" in complaint(server)


def test_maps_of_an_image_are_put_together_when_asked_for_and_stay_as_they_are():
    object_ = picture(40, 23)
    with FakeDoor() as door, LiveReconstruction(door.address) as live:
        door.begin("0000-a")
        door.publish(object_)
        first = wait_for(live)
        door.publish(2 * object_)
        second = wait_for(live)
        np.testing.assert_array_equal(second.object, 2 * object_)
    np.testing.assert_array_equal(first.object, object_)
    assert first.object is first.object
    assert set(first.maps) == {"object", "sigma", "photons", "source"}
