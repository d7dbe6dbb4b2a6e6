"""Whatever a browser, or somebody else, asks the page: it answers, without a fault of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSMsgType
from yarl import URL

from launch.page.scans.records import ScanRecords
from tests.helpers.launch.pages import outcome, viewer
from tests.helpers.launch.saved_scans import SavedScans
from tests.helpers.stream.fake_door import FakeDoor

WRONG = (
    "",
    "-1",
    "1.5",
    "9" * 13,
    "9" * 3000,
    "nan",
    "banana",
    "%00",
    "%C3%BC",
    "%C3%BC" * 150,
    "..",
    "%2e%2e%2f",
    "a%0Ab",
    "%FF%FE",
    "%ED%A0%80",
)
PLACES = (
    "/scans?n={}",
    "/scans?before={}",
    "/scans/{}/pattern",
    "/scans/{}/curves",
    "/scans/{}/picture",
    "/scans/0000-a/pattern?frame={}",
    "/scans/0000-a/probe?after={}",
    "/versions/{}/1",
    "/versions/0000-a/{}",
    "/file/0000-a/1/{}.tif",
    "/file/{}/1/phase.tif",
    "/file/0000-a/{}/image.cxi",
    "/web/{}",
    "/{}",
)
WORDS = ("", "banana", "phase," * 600, "\0", "phase,phase,phase", "{}", "[" * 4000)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    saved = SavedScans(tmp_path)
    saved.whole()
    with FakeDoor() as door, viewer(door.address, records=ScanRecords(saved.save, saved.run.run_id)) as url:
        yield url


async def statuses(url: str, paths: list[str]) -> dict[str, int]:
    found = {}
    async with ClientSession() as session:
        for path in paths:
            async with session.get(URL(url + path, encoded=True)) as answer:
                found[path] = answer.status
    return found


def test_a_request_with_a_wrong_part_is_answered_and_never_a_fault(url: str) -> None:
    found = outcome(statuses(url, [place.format(wrong) for place in PLACES for wrong in WRONG]))
    assert {path: status for path, status in found.items() if status >= 500} == {}
    assert outcome(statuses(url, ["/"])) == {"/": 200}


async def talk(url: str) -> tuple[list[WSMsgType], int]:
    kinds = []
    async with ClientSession() as session:
        for words in (*WORDS, "x" * 5000, b"\xff" * 100, b"\0" * 5000):
            async with session.ws_connect(f"{url}/live") as socket:
                await (socket.send_bytes(words) if isinstance(words, bytes) else socket.send_str(words))
                if isinstance(words, str):
                    kinds.append((await socket.receive(timeout=10)).type)
        async with session.post(f"{url}/steer", data=b"[" * 4000) as answer:
            return kinds, answer.status


def test_words_on_the_live_connection_that_mean_nothing_are_borne(url: str) -> None:
    kinds, steered = outcome(talk(url))
    assert kinds[-1] in (WSMsgType.CLOSE, WSMsgType.CLOSED), "too long"
    assert set(kinds[:-1]) <= {WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CLOSE}
    assert steered == 403
    assert outcome(statuses(url, ["/", "/scans"])) == {"/": 200, "/scans": 200}
