"""A steered scan on the page: what a person sees and says, from a real policy to the pixels and back."""

import contextlib
import re

import numpy as np

from stream.wire.sockets import Endpoint
from tests.helpers.launch.pages import viewer, wait_for_text, wait_for_version
from tests.helpers.launch.plans import AskingPlan, answering, until
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.policies import AXES, SIDE, policy

FIELD = np.ones((SIDE, SIDE), np.complex64)


@contextlib.contextmanager
def steered_page(page, **options):
    """A page that shows an image and a policy with a plan; gives the plan and the URL."""
    with FakeDoor() as door, answering(steers=policy(max_dose=1e4)) as address, AskingPlan(address) as plan:
        door.begin("0000-field")
        door.publish(FIELD, path=[[40, 40], [50, 60]])
        with viewer(door.address, policy=Endpoint(address=address), **options) as url:
            page.goto(url)
            wait_for_version(page, 1)
            page.wait_for_selector("#steering:not([hidden])")
            wait_for_text(page, "#plan", "agent: survey: not seen everywhere")
            yield plan, url


def on_canvas(page, row, column):
    """Where a pixel of the image is in the left panel, CSS pixels of the page."""
    box = page.locator(".panel .image").first.bounding_box()
    scale = min((box["width"] - 8) / SIDE, (box["height"] - 8) / SIDE)
    x = box["x"] + box["width"] / 2 + (column - SIDE / 2) * scale
    return x, box["y"] + box["height"] / 2 + (row - SIDE / 2) * scale


def colours_near(page, row, column, reach=5):
    """Colours (red, green, blue) drawn around a pixel of the image."""
    x, y = on_canvas(page, row, column)
    box = page.locator(".panel .image").first.bounding_box()
    at = [x - box["x"] - reach, y - box["y"] - reach, 2 * reach]
    data = page.evaluate(
        "([x, y, n]) => [...document.querySelector('.panel .image').getContext('2d')"
        ".getImageData(x, y, n, n).data]",
        at,
    )
    return {tuple(data[i : i + 3]) for i in range(0, len(data), 4)}


def test_the_page_shows_what_the_policy_wants_and_why(page):
    with steered_page(page) as (plan, _):
        wait_for_text(page, "#audit", "survey")
        assert page.text_content("#measured") == "0 measured"
        assert page.text_content("#left") == "27 left, 9 next"
        assert page.text_content("#dose") == "0 of 10,000 photons/px"
        assert page.is_enabled("#hold")
        assert page.is_disabled("#clear")
        row, column = AXES.centres(plan.points[:1])[0]
        assert (0xFF, 0xD2, 0x7A) in colours_near(page, row, column)
        assert (0xFF, 0xD2, 0x7A) not in colours_near(page, row + 14, column + 14)
        plan.n_left = 4
        wait_for_text(page, "#left", "4 left, 4 next")


def test_a_person_holds_resumes_and_stops_with_the_keyboard(page):
    with steered_page(page) as (plan, _):
        page.focus("#hold")
        page.keyboard.press("Enter")
        until(lambda: plan.client.heard.held)
        wait_for_text(page, "#hold", "resume")
        assert page.get_attribute("#hold", "aria-pressed") == "true"
        wait_for_text(page, "#said", "held by the page")
        page.keyboard.press("Enter")
        until(lambda: not plan.client.heard.held)
        page.click("#stop")
        wait_for_text(page, "#stop", "really?")
        assert plan.client.heard.stopper is None
        page.click("#stop")
        until(lambda: plan.client.heard.stopper is not None)
        wait_for_text(page, "#plan", "stopping after this batch")
        assert page.is_disabled("#hold")


def test_a_region_is_drawn_with_the_mouse_and_cleared(page):
    with steered_page(page) as (plan, _):
        page.click("#draw")
        page.mouse.move(*on_canvas(page, 60, 50))
        page.mouse.down()
        page.mouse.move(*on_canvas(page, 130, 120), steps=4)
        page.mouse.up()
        until(lambda: plan.client.heard.region is not None)
        corners = AXES.centres(np.array(plan.client.heard.region).T)
        np.testing.assert_allclose(corners, [[60, 50], [130, 120]], atol=2)
        until(lambda: (0xFF, 0x8F, 0x6B) in colours_near(page, 60, 80))
        y, x = plan.client.heard.region
        until(lambda: (plan.points[:, 0] >= y[0]).all() and (plan.points[:, 1] <= x[1]).all())
        page.click("#clear")
        until(lambda: plan.client.heard.region is None)
        page.click("#draw")
        page.keyboard.press("Escape")
        assert page.get_attribute("#draw", "aria-pressed") == "false"


def test_without_a_policy_the_page_shows_nothing_of_it(page):
    with FakeDoor() as door, viewer(door.address) as url:
        door.begin("0000-field")
        door.publish(FIELD)
        page.goto(url)
        wait_for_version(page, 1)
        wait_for_text(page, "#status", "live")
        assert page.is_hidden("#steering")


def test_a_policy_that_is_gone_is_said_and_cannot_be_spoken_to(page):
    with FakeDoor() as door, viewer(door.address, policy=Endpoint(address="tcp://127.0.0.1:9")) as url:
        door.begin("0000-field")
        door.publish(FIELD)
        page.goto(url)
        wait_for_text(page, "#trouble", re.compile("does not answer|has not answered"))
        assert page.is_disabled("#hold")
        assert page.is_disabled("#stop")
