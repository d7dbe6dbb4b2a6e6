"""The tabs beside the progress in a real browser: probe and pattern, curves, scans and earlier images."""

import numpy as np
import pytest

from launch.page.scans.records import ScanRecords
from operators.metrics.errors import FRC
from tests.helpers.launch.pages import corner_object, viewer, wait_for_version
from tests.helpers.launch.saved_scans import SavedScans
from tests.helpers.stream.fake_door import FakeDoor

# How many colours a canvas has: 1 is blank.
N_COLOURS = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""
# The colour in the middle of where a scale bar begins.
AT_SCALE_BAR = """(canvas) => {
  const unit = devicePixelRatio;
  return [...canvas.getContext("2d").getImageData(17 * unit, canvas.height - 16 * unit, 1, 1).data];
}"""
RASTERS = "#probe .pattern .rasters canvas"


@pytest.fixture
def shown(page, tmp_path, monkeypatch):
    """The page of a run with one scan that is over and one that goes on."""
    monkeypatch.setattr("launch.page.versions.INTERVAL_S", 0.02)
    saved = SavedScans(tmp_path)
    frequency = np.linspace(0, 0.5, 11)
    saved.whole(halves=FRC(frequency=frequency, correlation=1 - 2 * frequency, n_pixels=np.full(11, 40)))
    running = saved.begin("0001-b")
    saved.record(running, saved.numbers)
    saved.refine(running, saved.numbers[:20])
    with FakeDoor() as door, viewer(door.address, records=ScanRecords(tmp_path, saved.run.run_id)) as url:
        door.begin("0001-b")
        door.publish(corner_object(), frames_seen=20)
        page.goto(url)
        wait_for_version(page, 1)
        yield page, door


def choose(page, tab):
    page.click(f'[aria-controls="{tab}"]')


def text_of(page, selector, words):
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(words, timeout=20_000)


def n_colours(page, selector):
    return page.locator(selector).evaluate_all(f"(all) => all.map({N_COLOURS})")


def test_probe_and_pattern_are_drawn_with_what_there_is_to_say_of_them(shown):
    page, _ = shown
    choose(page, "probe")
    text_of(page, ".modes figcaption", "mode 1: 100 % of the power")
    text_of(page, ".modes .words", "refined with the object, epoch 3.0")
    assert min(n_colours(page, ".modes canvas")) > 20
    assert page.locator(".modes canvas").first.evaluate(AT_SCALE_BAR) == [255, 255, 255, 255]
    text_of(page, ".pattern .facts", "frame 19; the newest is 35")
    text_of(page, ".pattern .facts", "of noise alone")
    assert min(n_colours(page, RASTERS)) > 20
    assert page.locator(RASTERS).first.evaluate(AT_SCALE_BAR) == [255, 255, 255, 255]
    page.fill(".pattern input", "30")
    page.press(".pattern input", "Enter")
    text_of(page, ".pattern .words", "on its way into the picture")
    assert page.locator(RASTERS).nth(0).is_visible()
    assert not page.locator(RASTERS).nth(1).is_visible()
    page.fill(".pattern input", "99")
    page.press(".pattern input", "Enter")
    text_of(page, ".pattern .words", "frame 99 of 0001-b is not recorded; the newest is 35")


def test_curves_have_axes_and_a_readout_or_say_why_there_are_none(shown):
    page, _ = shown
    choose(page, "curves")
    text_of(page, ".error .words", "0.25 after 2 visits of 20 frames")
    assert n_colours(page, ".error canvas")[0] > 3
    page.hover(".error canvas", position={"x": 560, "y": 40})
    text_of(page, ".error output", "epoch 2: error 0.25, 20 frames")
    text_of(page, ".frc .words", "it comes with the result, after the scan")
    choose(page, "scans")
    page.click('.scan-list [data-scan="0000-a"]')
    text_of(page, "#stored", "final image of 0000-a")
    choose(page, "curves")
    text_of(page, ".frc .words", "half period")
    assert n_colours(page, ".frc canvas")[0] > 3


def test_a_tab_that_is_chosen_while_the_page_still_loads_shows_what_it_has(shown):
    page, _ = shown
    page.route("**/web/data/plot.js", lambda route: (choose(page, "curves"), route.continue_()))
    page.reload()
    text_of(page, ".error .words", "0.25 after 2 visits of 20 frames")


def test_a_tab_that_does_not_load_says_so_and_the_others_work(shown):
    page, _ = shown
    page.route("**/web/data/scans.js", lambda route: route.abort())
    page.reload()
    choose(page, "scans")
    text_of(page, "#scans", "The viewer went away before this part of the page was loaded")
    choose(page, "probe")
    text_of(page, ".modes figcaption", "mode 1: 100 % of the power")


def test_a_scan_is_opened_by_a_click_and_left_by_another(shown):
    page, _ = shown
    choose(page, "scans")
    text_of(page, '.scan-list [data-scan="0000-a"] .state', "complete, 36 frames")
    text_of(page, '.scan-list [data-scan="0001-b"] .state', "running, 36 frames")
    page.wait_for_selector('.scan-list [data-scan="0000-a"] canvas[data-drawn]')
    assert n_colours(page, '.scan-list [data-scan="0000-a"] canvas')[0] > 20
    page.click('.scan-list [data-scan="0000-a"]')
    page.wait_for_selector('.scan-list [data-scan="0000-a"][aria-pressed="true"]')
    choose(page, "probe")
    text_of(page, ".modes em", "0000-a")
    page.click("#stored button")
    text_of(page, ".modes em", "0001-b")
    assert page.is_hidden("#stored")


def test_the_slider_goes_through_earlier_images_and_back_to_the_live_one(shown):
    page, door = shown
    choose(page, "scans")
    page.wait_for_selector('.versions input[max="1"]')
    door.publish(corner_object(), frames_seen=36)
    page.wait_for_selector('.versions input[max="2"]')
    text_of(page, ".versions output", "live")
    page.focus(".versions input")
    page.keyboard.press("Home")
    text_of(page, ".versions output", "20 frames")
    text_of(page, "#stored", "version 1 of 0001-b")
    wait_for_version(page, 1)
    page.keyboard.press("End")
    text_of(page, ".versions output", "live")
    wait_for_version(page, 2)
    assert page.is_hidden("#stored")


def test_on_a_phone_nothing_leaves_the_screen(shown):
    page, _ = shown
    page.set_viewport_size({"width": 390, "height": 844})
    waits = {"probe": ".pattern .facts", "curves": ".error .words", "scans": ".scan-list .state >> nth=0"}
    for tab, selector in waits.items():
        choose(page, tab)
        text_of(page, selector, "frames" if tab != "probe" else "photons")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for box in page.locator(f"#{tab} canvas:visible").all():
            found = box.bounding_box()
            assert found["x"] >= 0
            assert found["x"] + found["width"] <= 390
