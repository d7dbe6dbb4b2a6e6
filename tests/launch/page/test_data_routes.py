"""The server's answers about scans and versions, without a browser."""

import io
import json

import numpy as np
import pytest
from aiohttp import ClientSession
from PIL import Image

from launch.page.guard import HEADERS
from launch.page.scans.records import ScanRecords
from launch.results.cxi import read_result
from stream.record.scan import State
from tests.helpers.launch.pages import outcome, viewer
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
    return outcome(_fetched(url, path, headers))


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
                assert (status, headers["Content-Security-Policy"]) == (
                    200,
                    HEADERS["Content-Security-Policy"],
                )
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
        ("/file/0000-a/1/banana.tif", 404, "there is no map 'banana', only amplitude, phase"),
        ("/file/0009-x/1/phase.tif", 404, "there is no scan '0009-x'"),
        ("/file/..%2Fruns/1/image.cxi", 404, "there is no scan"),
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


def test_the_live_image_is_a_file_of_numbers_every_pixel_of_it(saved, door, url, tmp_path):
    saved.whole().mark("stitcher", saved.numbers[:30], State.DONE)
    object_ = saved.sample.truth.astype(np.complex64)
    door.begin("0000-a")
    door.publish(object_, origin=tuple(int(edge) for edge in saved.sample.origin))
    until(lambda: b'"version":1' in fetched(url, "/versions")[2])
    _, headers, body = fetched(url, "/file/0000-a/1/amplitude.tif")
    assert headers["Content-Disposition"] == 'attachment; filename="0000-a-v1-amplitude.tif"'
    with Image.open(io.BytesIO(body)) as tiff:
        np.testing.assert_allclose(np.array(tiff), np.abs(object_), atol=1e-6)
        assert json.loads(tiff.tag_v2[270])["pixel_m"] == 1e-8
    status, headers, body = fetched(url, "/file/0000-a/1/image.cxi")
    assert (status, headers["Content-Disposition"]) == (200, 'attachment; filename="0000-a-v1.cxi"')
    (tmp_path / "live.cxi").write_bytes(body)
    result = read_result(tmp_path / "live.cxi")
    np.testing.assert_array_equal(result.object, object_)
    np.testing.assert_allclose(result.probe, saved.sample.probe, atol=1e-6)
    assert result.bounds.origin == tuple(saved.sample.origin)
    np.testing.assert_array_equal(result.frame_numbers, saved.numbers[:30])
    assert len(result.positions_m) == 30


def test_an_earlier_version_is_saved_as_it_was_kept_and_a_scan_that_is_over_as_its_result(saved, door, url):
    saved.whole()
    door.begin("0001-b")
    door.publish(np.full((700, 8), 2, np.complex64))
    until(lambda: b'"version":1' in fetched(url, "/versions")[2])
    _, _, body = fetched(url, "/file/0001-b/1/amplitude.tif?stored=1")
    with Image.open(io.BytesIO(body)) as tiff:
        assert np.array(tiff).shape == (350, 4)
        facts = json.loads(tiff.tag_v2[270])
    assert (facts["binning"], facts["pixel_m"]) == (2, 2e-8)
    status, _, body = fetched(url, "/file/0001-b/1/image.cxi?stored=1")
    assert (status, body) == (409, b"of an earlier version only the picture is kept: save it as TIFF")
    written = (saved.save / "results" / "0000-a.cxi").read_bytes()
    assert fetched(url, "/file/0000-a/1/image.cxi?stored=1")[2] == written
