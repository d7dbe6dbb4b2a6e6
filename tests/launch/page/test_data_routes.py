"""The server's answers about scans and versions, without a browser."""

import asyncio

import numpy as np
import pytest
from aiohttp import ClientSession

from launch.page.scans.records import ScanRecords
from tests.helpers.launch.pages import viewer
from tests.helpers.launch.plans import until
from tests.helpers.launch.saved_scans import SavedScans, decode_arrays
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.live_images import decode_picture


async def _fetched(url, path, headers):
    from yarl import URL

    # as it stands: a client that tidies the path would never ask for one that leaves the folder
    async with (
        ClientSession() as session,
        session.get(URL(url + path, encoded=True), headers=headers) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


def fetched(url, path, **headers):
    return asyncio.run(_fetched(url, path, headers))


@pytest.fixture
def saved(tmp_path):
    return SavedScans(tmp_path)


@pytest.fixture
def door(monkeypatch):
    monkeypatch.setattr("launch.page.versions.INTERVAL_S", 0.02)
    with FakeDoor() as door:
        yield door


@pytest.fixture
def url(saved, door):
    with viewer(door.address, records=ScanRecords(saved.save, saved.run.run_id)) as url:
        yield url


def test_everything_about_a_scan_is_answered(saved, url):
    saved.whole()
    status, headers, body = fetched(url, "/scans?n=5")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert b'"0000-a"' in body
    for name in ("newest", "0000-a"):
        for view in ("probe", "pattern", "thumbnail"):
            if (name, view) != ("newest", "thumbnail"):
                status, headers, body = fetched(url, f"/scans/{name}/{view}")
                assert (status, headers["Content-Security-Policy"]) == (200, "default-src 'self'")
                assert decode_arrays(body)[1]
    assert fetched(url, "/scans/0000-a/probe?after=0000-a%20refined-1")[0] == 204
    assert b'"epoch"' in fetched(url, "/scans/0000-a/curves")[2]
    assert decode_picture(fetched(url, "/scans/0000-a/picture")[2])[0]["scan"] == "0000-a"
    assert decode_arrays(fetched(url, "/scans/0000-a/pattern?frame=3")[2])[0]["frame"] == 3


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/scans/newest/probe", 404, "no scan has begun yet"),
        ("/scans/0009-x/curves", 404, "there is no scan '0009-x'"),
        ("/scans/..%2F..%2Fetc/probe", 404, "there is no scan"),
        ("/scans/..%2Fruns/pattern", 404, "there is no scan"),
        ("/scans/../probe", 404, ""),
        ("/scans/%2e%2e/picture", 404, ""),
        ("/scans/newest/pattern?frame=-1", 400, "expected a whole number"),
        ("/scans/newest/pattern?frame=" + "9" * 40, 400, "expected a whole number"),
        ("/scans?n=all", 400, "expected a whole number"),
        ("/versions/0000-a/3", 404, "is not kept any more"),
        ("/versions/0000-a/x", 404, ""),
    ],
)
def test_what_is_not_there_or_not_allowed_is_refused_in_words(url, path, status, words):
    found, headers, body = fetched(url, path)
    assert found == status
    assert words in body.decode()
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_other_sites_read_nothing_and_nothing_is_written(saved, url):
    saved.whole()
    before = sorted(path for path in saved.save.rglob("*"))
    for path in ("/scans", "/scans/0000-a/probe", "/scans/0000-a/picture", "/versions"):
        assert fetched(url, path, Origin="http://elsewhere.example")[0] == 403
        assert fetched(url, path, Host="rebound.example:80")[0] == 403
        fetched(url, path)
    assert sorted(path for path in saved.save.rglob("*")) == before


def test_a_page_without_a_folder_says_so(door):
    with viewer(door.address) as url:
        assert fetched(url, "/scans")[2] == b"this page has no folder of scans"
        assert fetched(url, "/scans/newest/probe")[0] == 404


def test_versions_of_the_live_image_can_be_had_again(door, url):
    door.begin("0000-a")
    for n_frames in (10, 20):
        door.publish(np.full((8, 8), n_frames, np.complex64), frames_seen=n_frames)
        until(lambda n=n_frames: f'"frames":{n}'.encode() in fetched(url, "/versions")[2])
    status, _, body = fetched(url, "/versions/0000-a/1")
    assert status == 200
    assert decode_picture(body)[0]["version"] == 1
