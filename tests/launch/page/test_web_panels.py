"""What a person does with an image: colours, places and values, a profile, saving, keys and fingers."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from launch.page.server import LiveFeed
from tests.helpers.launch.pages import colour_at, corner_object, viewer, wait_for_text, wait_for_version
from tests.helpers.stream.fake_door import FakeDoor

LEFT, RIGHT = ".panel:nth-child(1)", ".panel:nth-child(2)"
MOTORS = {"unit": "mm", "origin": [2.0, -1.0], "pitch": [0.001, -0.002]}


@pytest.fixture
def shown(page, monkeypatch):
    """A page that shows an image on a motor stage; gives the door, to publish more."""
    state = LiveFeed.state
    monkeypatch.setattr(
        LiveFeed, "state", lambda feed: json.dumps(json.loads(state(feed)) | {"motors": MOTORS}).encode()
    )
    with FakeDoor() as door, viewer(door.address) as url:
        door.begin("0000-corner")
        door.publish(corner_object() * np.exp(0.3j), origin=(100, 200), path=[[110, 210], [110, 250]])
        page.goto(url)
        wait_for_version(page, 1)
        yield door


def point_at(page, x, y, panel=LEFT):
    """Move the mouse to a part of the image's width and height; gives the place on the screen."""
    box = page.locator(f"{panel} .image").bounding_box()
    scale = min((box["width"] - 8) / 60, (box["height"] - 8) / 40)
    at = (
        box["x"] + box["width"] / 2 + (x - 0.5) * 60 * scale,
        box["y"] + box["height"] / 2 + (y - 0.5) * 40 * scale,
    )
    page.mouse.move(*at)
    return at


def limits(page):
    return [page.text_content(f"{LEFT} .{end}") for end in ("low", "high")]


def test_the_readout_has_motor_positions_the_value_with_its_unit_and_the_error_beside_it(page, shown):
    point_at(page, 30.5 / 60, 10.5 / 40)
    wait_for_text(page, f"{LEFT} output", "x −1.460  y 2.110 mm   1.000 transmission")
    wait_for_text(page, f"{RIGHT} output", re.compile(r"x −1\.460  y 2\.110 mm   −?0\.00 ± 0\.10 rad"))


def test_a_colour_range_is_kept_for_its_map_also_when_the_page_is_loaded_again(page, shown):
    assert limits(page) == ["0.5", "1"]
    page.click(f"{LEFT} [data-do=range]")
    page.fill(f"{LEFT} [name=high]", "2")
    page.press(f"{LEFT} [name=high]", "Enter")
    wait_for_text(page, f"{LEFT} .high", "2")
    assert colour_at(page, 0.75, 0.1)[0] == pytest.approx(255 / 3, abs=2)
    page.select_option(f"{LEFT} [name=colours]", "blue-yellow")
    assert len(set(colour_at(page, 0.75, 0.1)[:3])) > 1
    page.click(f"{LEFT} nav [data-map=phase]")
    page.wait_for_selector(f"{LEFT}[data-shown=phase]")
    assert limits(page)[1] != "2"
    page.reload()
    wait_for_version(page, 1)
    page.click(f"{LEFT} nav [data-map=amplitude]")
    wait_for_text(page, f"{LEFT} .high", "2")
    page.click(f"{LEFT} [data-do=range]")
    page.select_option(f"{LEFT} [name=of]", "1")
    wait_for_text(page, f"{LEFT} .high", "1")


def test_a_frozen_range_stays_when_the_image_changes(page, shown):
    page.click(f"{LEFT} [data-do=range]")
    page.select_option(f"{LEFT} [name=of]", "fixed")
    shown.publish(3 * corner_object(), origin=(100, 200))
    wait_for_version(page, 2)
    assert limits(page) == ["0.5", "1"]


def test_a_profile_shows_the_values_along_a_drawn_line(page, shown):
    page.keyboard.press("p")
    page.mouse.move(*point_at(page, 0.1, 0.25))
    page.mouse.down()
    page.mouse.move(*point_at(page, 0.9, 0.25), steps=4)
    page.mouse.up()
    sampled = page.evaluate(
        """async () => {
          const { sample } = await import("/web/image/profile.js");
          const { view } = await import("/web/image/view.js");
          const { values, lengthM } = sample(view.picture, view.picture.maps.amplitude, view.line, 3);
          return [[...values], lengthM];
        }"""
    )
    values, length_m = sampled
    assert length_m == pytest.approx(0.8 * 60 * 1e-8, rel=0.02)
    assert (values[2], values[-2]) == (pytest.approx(0.5, abs=1e-3), pytest.approx(1.0, abs=1e-3))
    assert page.is_visible(f"{LEFT} .profile canvas")
    page.click(f"{RIGHT} .profile [data-close]")
    assert page.is_hidden(f"{LEFT} .profile")


def test_what_is_shown_is_saved_as_a_picture_and_as_numbers(page, shown):
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "0000-corner-v1-amplitude.png"
    with Image.open(download.value.path()) as picture:
        assert picture.width > 500
    page.click(f"{RIGHT} [data-do=save]")
    with page.expect_download() as download:
        page.click(f"{RIGHT} [data-save=tif]")
    assert download.value.suggested_filename == "0000-corner-v1-phase.tif"
    with Image.open(download.value.path()) as tiff:
        assert tiff.tag_v2[296] == 3  # pixels per centimetre
        assert float(tiff.tag_v2[282]) == pytest.approx(1e6)
        assert json.loads(tiff.tag_v2[270])["unit"] == "rad"
        values = np.array(tiff)
    assert (values.dtype, values.shape) == (np.float32, (40, 60))
    assert np.isnan(values[-1, -1])
    assert np.nanmax(np.abs(values)) < 1e-5
    page.click(f"{RIGHT} [data-do=save]")
    page.click(f"{RIGHT} [data-save=cxi]")
    wait_for_text(page, f"{RIGHT} .saving [role=alert]", re.compile("no folder of scans"))


def test_keys_choose_maps_zoom_and_move_and_the_overlay_says_so(page, shown):
    page.focus(f"{RIGHT} .image")
    page.keyboard.press("3")
    page.wait_for_selector(f"{RIGHT}[data-shown=sigma]")
    page.keyboard.press("2")
    page.keyboard.press("r")
    page.wait_for_selector(f"{RIGHT}[data-shown=phase_with_ramp]")
    before = colour_at(page, 0.3, 0.25)
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert colour_at(page, 0.3, 0.25) != before
    page.keyboard.press("0")
    assert colour_at(page, 0.3, 0.25) == before
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    assert page.is_hidden("#help")


def test_the_patterns_alone_are_shown_until_there_is_an_image_and_when_they_are_chosen(page):
    centres = np.float32([[y, x] for y in range(4, 40, 4) for x in range(4, 60, 4)])
    moments = np.column_stack([centres, np.full(len(centres), 100.0), centres / 100, centres[:, 0]])
    with FakeDoor() as door, viewer(door.address) as url:
        door.begin("0000-corner")
        door.publish(np.zeros((40, 60)), moments=moments)
        page.goto(url)
        page.wait_for_selector(f"{LEFT}[data-shown=intensity]")
        page.wait_for_selector(f"{RIGHT}[data-shown=dpc]")
        wait_for_text(page, f"{RIGHT} .unit", "rad: DPC of the patterns, until there is an image")
        door.publish(corner_object(), moments=moments)
        page.wait_for_selector(f"{LEFT}[data-shown=amplitude]")
        page.wait_for_selector(f"{RIGHT}[data-shown=phase]")
        page.select_option(f"{LEFT} nav select", "dark_field")
        page.wait_for_selector(f"{LEFT}[data-shown=dark_field]")
        wait_for_text(page, f"{LEFT} .unit", "px")
        page.focus(f"{LEFT} .image")
        page.keyboard.press("1")
        page.wait_for_selector(f"{LEFT}[data-shown=amplitude]")
        assert page.input_value(f"{LEFT} nav select") == ""


def test_an_explanation_opens_where_there_is_no_mouse(page, shown):
    page.focus('dt:has-text("pending")')
    wait_for_text(page, "#hint", re.compile("on their way"))
    page.keyboard.press("Escape")
    assert page.is_hidden("#hint")


def test_two_fingers_zoom_one_moves_and_a_double_tap_shows_the_whole_again(page, shown):
    client = page.context.new_cdp_session(page)
    x, y = point_at(page, 0.5, 0.5)

    def touch(kind, *points):
        fingers = [{"x": px, "y": py, "id": i} for i, (px, py) in enumerate(points)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    def zoom():
        return page.evaluate('async () => (await import("/web/image/view.js")).view.zoom')

    touch("touchStart", (x - 20, y), (x + 20, y))
    for reach in (30, 40, 60):
        touch("touchMove", (x - reach, y), (x + reach, y))
    touch("touchEnd")
    assert zoom() == pytest.approx(3, rel=0.15)
    for _ in range(2):
        touch("touchStart", (x, y))
        touch("touchEnd")
    assert zoom() == 1


def test_after_the_run_everything_but_saving_numbers_works_on_the_final_image(page):
    with FakeDoor() as door:
        with viewer(door.address) as url:
            door.begin("0000-corner")
            door.publish(corner_object(), is_final=True, counts={"expected": 1, "recorded": 1})
            page.goto(url)
            wait_for_version(page, 1)
        wait_for_text(page, "#status", re.compile("the run has ended"))
        for name in ("sigma", "photons", "source", "amplitude"):
            page.click(f"{LEFT} nav [data-map={name}]")
            page.wait_for_selector(f"{LEFT}[data-shown={name}]")
        point_at(page, 0.75, 0.25)
        wait_for_text(page, f"{LEFT} output", re.compile("1.000 transmission"))
        with page.expect_download():
            page.keyboard.press("s")
        page.click(f"{LEFT} [data-do=save]")
        page.click(f"{LEFT} [data-save=tif]")
        wait_for_text(page, f"{LEFT} .saving [role=alert]", re.compile("The run has ended"))
