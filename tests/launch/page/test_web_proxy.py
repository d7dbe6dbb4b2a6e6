"""The page behind a proxy that has TLS and a path of its own, in a real browser."""

import shutil

import pytest

from tests.helpers.launch.pages import corner_object, viewer, wait_for_version
from tests.helpers.launch.proxy import tls_proxy
from tests.helpers.stream.fake_door import FakeDoor


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the proxy's certificate needs openssl")
def test_behind_a_proxy_the_page_keeps_to_its_scheme_and_its_path(browser, tmp_path):
    asked, sockets = [], []
    with FakeDoor() as door, viewer(door.address) as url, tls_proxy(url, tmp_path) as outside:
        door.begin("0000-corner")
        door.publish(corner_object())
        page = browser.new_page(ignore_https_errors=True)
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: sockets.append(socket.url))
        page.goto(outside)
        wait_for_version(page, 1)
        with page.expect_response(f"{outside}versions"):
            page.click('[role="tab"][aria-controls="scans"]')
        page.close()
    assert sockets == [f"wss{outside.removeprefix('https')}live"]
    assert [request for request in asked if not request.startswith(outside)] == []
