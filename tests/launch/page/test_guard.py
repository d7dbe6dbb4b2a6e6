"""Whom the page answers, over real connections: a name that anybody can point here opens nothing."""

import re
import socket
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import make_mocked_request

from launch.config.sections import ViewerConfig
from launch.page.guard import asker
from launch.page.server import FILES
from stream.wire.sockets import Endpoint
from tests.helpers.launch.pages import viewer

OPEN = {"host": "0.0.0.0", "insecure": True, "hosts": ("beamline.example",)}
NOBODY = "tcp://127.0.0.1:9"


def status_of(url: str, method: str, path: str, *headers: str) -> int:
    """Ask at the address of `url` in bytes of our own, whatever is in them."""
    port = urlsplit(url).port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        lines = [f"{method} {path} HTTP/1.1", *headers, "Connection: close", "Content-Length: 0", "", ""]
        connection.sendall("\r\n".join(lines).encode(errors="surrogateescape"))
        return int(connection.recv(1 << 16).split()[1])


@pytest.fixture(params=["loopback", "network"])
def url(request):
    settings = {} if request.param == "loopback" else OPEN
    policy = Endpoint(address=NOBODY)
    with viewer(NOBODY, policy=policy, controls=True, **settings) as address:
        yield address


FOREIGN = (
    "Host: rebound.example",
    "Host: rebound.example:{port}",
    "Host: 127.0.0.1.rebound.example:{port}",
    "Host: 127.0.0.1@rebound.example",
    "Host: rebound.example#127.0.0.1",
    "Host: [rebound",
    "Host: 192.0.2.7:{port}",
    "Host: ",
    "X-Forwarded-Host: localhost",
)


@pytest.mark.allow_error_log  # of a header that is none
def test_a_name_that_is_not_the_pages_is_answered_nowhere(url):
    for host in FOREIGN:
        header = host.format(port=urlsplit(url).port)
        for path in ("/", "/colours", "/web/live.js", "/live", "/scans", "/versions", "/nothing"):
            assert status_of(url, "GET", path, header) in (400, 403), (header, path)
        # With the origin that its browser would send, and so would a script that has read the token.
        name = header.partition(": ")[2]
        assert status_of(url, "POST", "/steer", header, f"Origin: http://{name}") in (400, 403), header


def test_a_header_whose_bytes_are_no_text_is_no_fault(url):
    host = f"Host: 127.0.0.1:{urlsplit(url).port}"
    own, odd = f"Origin: http://{host.removeprefix('Host: ')}", "\udcff\udcfe \xfc"
    for path in ("/", "/live", "/scans", "/metrics"):
        for name in ("Origin", "Authorization", "Accept", "X-Steering-Token"):
            assert status_of(url, "GET", path, host, f"{name}: {odd}") < 500, (path, name)
        assert status_of(url, "GET", path, f"Host: {odd}") in (400, 403)
    assert status_of(url, "POST", "/steer", host, own, f"X-Steering-Token: {odd}") == 403


def test_the_page_answers_to_its_own_names(url):
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "localhost."):
        assert status_of(url, "GET", "/", f"Host: {name}:{urlsplit(url).port}") == 200, name


def test_a_page_on_a_network_answers_to_its_hosts_and_to_the_name_of_its_computer():
    with viewer(NOBODY, **OPEN) as url:
        for name in ("beamline.example", "Beamline.Example:8010", socket.gethostname()):
            assert status_of(url, "GET", "/", f"Host: {name}") == 200


def test_a_proxy_that_has_tls_may_stand_before_the_page():
    with viewer(NOBODY, **OPEN) as url:
        for host, origin, status in (
            ("beamline.example", "https://beamline.example", 200),
            ("127.0.0.1:8010", "https://beamline.example", 200),  # a proxy that asks for what it was told
            ("beamline.example", "https://beamline.example:9999", 403),
            ("beamline.example", "https://elsewhere.example", 403),
            ("localhost", "null", 403),
        ):
            assert status_of(url, "GET", "/", f"Host: {host}", f"Origin: {origin}") == status, (host, origin)


@pytest.mark.parametrize(
    ("remote", "forwarded", "hosts", "address"),
    [
        ("127.0.0.1", "203.0.113.9, 192.0.2.7", ("proxy.example",), "192.0.2.7"),
        ("::1", "192.0.2.7", ("proxy.example",), "192.0.2.7"),
        ("127.0.0.1", "somebody", ("proxy.example",), ""),
        ("127.0.0.1", "", ("proxy.example",), ""),
        ("127.0.0.1", "192.0.2.7", (), ""),  # nobody has said that there is a proxy
        ("192.0.2.8", "192.0.2.7", ("proxy.example",), "192.0.2.8"),
    ],
)
def test_who_asks_through_a_proxy_on_this_computer_is_whom_it_names_last(remote, forwarded, hosts, address):
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    request = make_mocked_request("POST", "/steer", headers=headers).clone(remote=remote)
    assert asker(request, ViewerConfig(hosts=hosts)) == address


@pytest.mark.parametrize(
    "host", ["https://proxy.example", "proxy.example:8443", "proxy.example/live", "", "[::1]"]
)
def test_a_host_is_a_name_and_nothing_more(host):
    with pytest.raises(ValueError, match="wanted names without https://, port and path"):
        ViewerConfig(hosts=(host,))
    assert ViewerConfig(hosts=("proxy.example", "2001:db8::7", "a_b-c")).hosts


def test_no_other_page_may_frame_it_and_only_its_own_files_are_run(url):
    with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head = connection.recv(1 << 16).decode()
    policy = re.search(r"Content-Security-Policy: (.*)\r", head)[1]
    directives = dict(directive.split(maxsplit=1) for directive in policy.split("; "))
    assert directives["default-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"
    assert not {"script-src", "style-src"} & set(directives), "nothing loosens default-src"


class Inline(HTMLParser):
    """Finds what a page would run or style without a file."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._is_script = False

    def handle_starttag(self, tag, attrs):
        self._is_script = tag in ("script", "style")
        self.found += [f"{tag} {name}" for name, _ in attrs if name.startswith("on") or name == "style"]
        self.found += [f"{tag} {value}" for _, value in attrs if (value or "").startswith("javascript:")]

    def handle_data(self, data):
        if self._is_script and data.strip():
            self.found.append(data)

    def handle_endtag(self, tag):
        self._is_script = False


def test_the_page_has_no_inline_script():
    inline = Inline()
    inline.feed((FILES / "index.html").read_text())
    assert inline.found == []
    scripts = [file.read_text() for file in FILES.rglob("*.js")]
    assert scripts
    for word in ("document.write", "eval(", "new Function"):
        assert not any(word in script for script in scripts), word
