"""The page in a real browser: what a person sees, from the pipeline's door to the pixels on the canvas."""

import re

import pytest

from tests.helpers.launch.pages import (
    COLOUR_AT,
    colour_at,
    corner_object,
    viewer,
    wait_for_text,
    wait_for_version,
)
from tests.helpers.stream.fake_door import FakeDoor


@pytest.fixture(autouse=True)
def shorter_silence(monkeypatch):
    monkeypatch.setattr("stream.live.client.SILENCE_S", 0.5)
    monkeypatch.setattr("launch.page.status.SILENCE_S", 0.5)


def test_the_image_is_drawn_the_way_it_lies_on_the_sample(page):
    with FakeDoor() as door, viewer(door.address) as url:
        page.goto(url)
        wait_for_text(page, "#status", "waiting for the first frame")
        door.begin("0000-corner")
        door.publish(corner_object(), origin=(-5, 9))
        wait_for_version(page, 1)
        assert colour_at(page, 0.75, 0.25)[:3] == [255, 255, 255]
        assert colour_at(page, 0.25, 0.25) == [0, 0, 0, 255]
        assert colour_at(page, 0.75, 0.6) == [0, 0, 0, 255]
        assert colour_at(page, 0.95, 0.9)[3] == 0
        page.click('.panel:first-child button[data-map="source"]')
        page.wait_for_selector('.panel:first-child[data-shown="source"]')
        assert colour_at(page, 0.25, 0.25) == [0xC9, 0x8F, 0x45, 255]


def test_the_image_grows_and_the_figures_follow(page):
    counts = {
        "expected": 1200,
        "recorded": 1190,
        "lost": 3,
        "no_position": 2,
        "settling": 3,
        "inferred": 1100,
        "mosaicked": 1090,
        "pending": 90,
    }
    with FakeDoor() as door, viewer(door.address) as url:
        door.begin("0000-corner")
        door.publish(corner_object()[:20], frames_seen=500)
        page.goto(url)
        wait_for_version(page, 1)
        door.publish(
            corner_object(),
            frames_seen=1090,
            counts=counts,
            epoch=4.25,
            error=0.01234,
            time_to_image_ms=(41.2, 87.6),
            model="3f9a17c2",
            path=[[10, 10], [10, 50]],
        )
        wait_for_version(page, 2)
        assert colour_at(page, 0.25, 0.75) == [0, 0, 0, 255]
        wait_for_text(page, 'tr[data-count="recorded"] .n', "1,190")
        wait_for_text(page, 'tr[data-count="refined"] .n', "–")
        shown = {
            name: page.text_content(f"#{name}")
            for name in ("lost", "pending", "left_out", "p50", "p99", "error", "epoch")
        }
        assert shown == {
            **{"lost": "3", "pending": "90", "left_out": "5", "p50": "41", "p99": "88"},
            **{"error": "0.0123", "epoch": "4.3"},
        }
        assert "bad" not in (page.get_attribute("#settling", "class") or ""), "it was asked for"
        assert [page.is_visible(f"#{name}") for name in ("left_out", "deferred")] == [True, False], "none are"
        parts = ("#pending", "#left_out", "#no_position", "#settling", "#lost", "#awaited")
        assert 1090 + sum(int(page.text_content(part)) for part in parts) == 1200
        assert page.text_content("#model") == "3f9a17c2"
        assert page.text_content("#field") == "600 × 400 nm"
        assert re.fullmatch(r"[\d,]+ /s", page.text_content('tr[data-count="recorded"] .rate'))


def test_a_dead_server_is_announced_over_the_last_image_and_its_return_clears_that(page):
    with FakeDoor() as door, viewer(door.address) as url:
        door.begin("0000-corner")
        door.publish(corner_object())
        page.goto(url)
        wait_for_text(page, "#status", "live")
        door.close()
        wait_for_text(page, "#status", re.compile(r"stale: no data for \d+\.\d s"))
        assert page.get_attribute("body", "data-level") == "stale"
        assert colour_at(page, 0.75, 0.25)[:3] == [255, 255, 255]
        with FakeDoor(door.address, run_id="second") as again:
            again.begin("0000-corner")
            again.publish(corner_object()[:, ::-1])
            wait_for_text(page, "#status", "live")
            page.wait_for_function(f"() => ({COLOUR_AT})([0.25, 0.25, 40, 60])[0] === 255")


def test_the_final_image_and_state_outlive_the_viewer(page):
    with FakeDoor() as door:
        with viewer(door.address) as url:
            door.begin("0000-corner")
            door.publish(corner_object()[:20], counts={"expected": 8, "recorded": 4})
            page.goto(url)
            wait_for_version(page, 1)
            door.publish(
                corner_object(),
                frames_seen=8,
                counts={"expected": 8, "recorded": 8, "lost": 0, "mosaicked": 8},
                is_final=True,
            )
            wait_for_text(page, "#status", re.compile("^scan complete: all 8 frames are in the image"))
        wait_for_text(page, "#status", "scan complete: all 8 frames are in the image – the run has ended")
        assert page.get_attribute("body", "data-level") == "complete"
        assert page.get_attribute("body", "data-version") == "2"
        assert page.text_content('tr[data-count="mosaicked"] .n') == "8"
        assert colour_at(page, 0.75, 0.25)[:3] == [255, 255, 255]


def test_an_incomplete_scan_is_never_shown_as_complete(page):
    with FakeDoor() as door, viewer(door.address) as url:
        door.begin("0000-corner")
        door.publish(
            corner_object(),
            frames_seen=5,
            counts={"expected": 8, "recorded": 5, "lost": 3},
            is_final=True,
            note="lost 3 frames (2-3, 7)",
        )
        page.goto(url)
        wait_for_text(page, "#status", "incomplete: lost 3 frames (2-3, 7); 5 of 8 frames are in the image")
        assert page.get_attribute("body", "data-level") == "incomplete"
        assert page.get_attribute("#lost", "class") == "bad"


def test_a_viewer_that_comes_back_is_found_by_the_open_page(page):
    with FakeDoor() as door:
        door.begin("0000-corner")
        door.publish(corner_object())
        with viewer(door.address) as url:
            page.goto(url)
            wait_for_version(page, 1)
        wait_for_text(page, "#status", re.compile("the viewer at .* does not answer"))
        with viewer(door.address, port=int(url.rsplit(":", 1)[1])):
            wait_for_text(page, "#status", "live")
