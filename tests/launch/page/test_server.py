import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError

from launch.config.sections import ViewerConfig
from launch.page.guard import HEADERS
from launch.page.server import FILES, POLL_S, LiveFeed, run_viewer
from launch.results.colours import tables
from stream.record.account import shares
from stream.wire import addresses
from stream.wire.messages import ImageFigures
from stream.wire.sockets import Endpoint, EndpointError, Socket
from tests.helpers.launch.pages import outcome
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.live_images import decode_picture


def test_a_page_others_can_see_needs_a_decision():
    with pytest.raises(ValueError, match="no password"):
        ViewerConfig(host="0.0.0.0")
    assert ViewerConfig(host="0.0.0.0", insecure=True).insecure


def test_a_refused_viewer_says_why_and_a_server_that_takes_it_clears_that(monkeypatch):
    monkeypatch.setattr("launch.page.server.RETRY_S", 0.01)
    door, stopping = FakeDoor(reject="install the same version"), threading.Event()
    feed = LiveFeed(Endpoint(address=door.address))
    thread = threading.Thread(target=feed.follow, args=(stopping,))
    with door:
        thread.start()
        _wait(lambda: "install the same version" in json.loads(feed.state())["text"])
        door.reject = ""
        _wait(lambda: json.loads(feed.state())["text"] == "waiting for the first frame")
        stopping.set()
        thread.join()


def _wait(condition, timeout_s=5.0):
    never = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if condition():
            return
        never.wait(0.01)
    raise AssertionError("the condition did not come true")


@pytest.fixture
def page():
    """The address of a running page, the door behind it, and what ends it."""
    ready, stopping, urls = threading.Event(), threading.Event(), []

    def on_ready(url):
        urls.append(url)
        ready.set()

    with FakeDoor() as door:
        told = {"on_ready": on_ready, "stopping": stopping}
        arguments = ViewerConfig(port=0), Endpoint(address=door.address)
        thread = threading.Thread(target=run_viewer, args=arguments, kwargs=told)
        thread.start()
        assert ready.wait(5.0)
        yield urls[0], door, stopping
        stopping.set()
        thread.join()


def test_a_browser_gets_each_version_once_and_then_only_the_state(page):
    url, door, _ = page

    async def talk():
        async with ClientSession() as session, session.ws_connect(f"{url}/live") as socket:
            await socket.send_str("next")
            before = await socket.receive_json(timeout=5)
            door.begin("a")
            door.publish(np.ones((4, 4), np.complex64), counts={"recorded": 4}, error=float("nan"))
            answers = []
            while not (answers and isinstance(answers[-1], bytes)):
                await socket.send_str("next")
                answers.append((await socket.receive(timeout=5)).data)
            state = await socket.receive_json(timeout=5)
            await socket.send_str("next")
            after = await socket.receive_json(timeout=5)
            return before, answers[-1], state, after

    before, packet, state, after = outcome(talk())
    assert before["level"] == "waiting"
    assert decode_picture(packet)[0]["version"] == 1
    assert (state["level"], state["counts"], state["scan"], state["error"]) == (
        "live",
        {"recorded": 4},
        "a",
        None,
    )
    assert state["shares"] == shares({"recorded": 4})
    assert after["version"] == 1
    assert set(ImageFigures.__struct_fields__) <= set(state)


def test_the_viewer_leaves_only_when_every_browser_has_the_newest_image(page):
    url, door, stopping = page
    door.begin("a")
    door.publish(np.ones((4, 4), np.complex64))

    async def next_version(socket):
        await socket.send_str("next")
        while not isinstance(data := (await socket.receive(timeout=5)).data, bytes):
            await socket.send_str("next")
        await socket.receive_json(timeout=5)
        return decode_picture(data)[0]["version"]

    async def talk():
        async with (
            ClientSession() as session,
            session.ws_connect(f"{url}/live") as slow,
            session.ws_connect(f"{url}/live") as fast,
        ):
            assert await next_version(slow) == 1
            assert await next_version(fast) == 1
            door.publish(np.ones((4, 4), np.complex64), is_final=True)
            assert await next_version(fast) == 2
            stopping.set()
            await asyncio.sleep(3 * POLL_S)  # the viewer has seen that it should leave
            assert await next_version(slow) == 2
            assert (await slow.receive(timeout=5)).type == WSMsgType.CLOSE

    outcome(talk())


def test_the_page_and_its_files_come_with_a_policy_that_forbids_everything_else(page):
    url, _, _ = page

    async def fetch(path):
        async with ClientSession() as session, session.get(url + path) as response:
            return response.status, response.headers.get("Content-Security-Policy"), await response.text()

    files = [file.relative_to(FILES) for file in FILES.rglob("*.*") if file.name != "index.html"]
    for path in ("/", *(f"/web/{file}" for file in files)):
        status, policy, text = outcome(fetch(path))
        assert (status, policy) == (200, HEADERS["Content-Security-Policy"])
        assert set(re.findall(r"\w+://[^/\s]*", text)) <= {"ws://${location.host}", "http://www.w3.org"}
    assert outcome(fetch("/web/../viewer.py"))[0] == 404


def test_the_page_gets_the_colours_that_pictures_of_results_have(page):
    async def fetch():
        async with ClientSession() as session, session.get(page[0] + "/colours") as response:
            return await response.json()

    told = outcome(fetch())
    assert {name: len(table) for name, table in told["tables"].items()} == {
        name: table.size for name, table in tables().items()
    }
    assert told["tables"]["grey"][:6] == [0, 0, 0, 1, 1, 1]
    assert set(told["of"].values()) <= set(told["tables"])


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://elsewhere.example"}, {"Host": "rebound.example:8010"}],
    ids=["origin", "host"],
)
def test_pages_of_other_sites_cannot_read_the_image(page, headers):
    url, _, _ = page

    async def connect():
        async with ClientSession() as session, session.ws_connect(f"{url}/live", headers=headers):
            pass

    with pytest.raises(WSServerHandshakeError) as refusal:
        outcome(connect())
    assert refusal.value.status == 403


def test_a_taken_port_is_a_clear_error():
    with Socket("ROUTER", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as other:
        port = int(other.address.rsplit(":", 1)[1])
        # Not in this thread, in which the browser of another test may have its loop.
        with (
            ThreadPoolExecutor(1) as elsewhere,
            pytest.raises(EndpointError, match=f"cannot serve the page at 127.0.0.1:{port}: .*port 0"),
        ):
            elsewhere.submit(run_viewer, ViewerConfig(port=port), Endpoint(address=addresses.LIVE)).result()
