import numpy as np
import pytest

from launch.page.status import RateMeter, status_of
from tests.helpers.stream.live_images import live_image

ADDRESS = "tcp://127.0.0.1:5810"


def test_status_says_what_people_must_know():
    image = live_image(np.ones((2, 2)), counts={"expected": 10, "lost": 0})
    final = live_image(np.ones((2, 2)), counts={"expected": 10, "lost": 0}, is_final=True)
    short = live_image(np.ones((2, 2)), counts={"expected": 13, "lost": 3}, is_final=True)
    noted = live_image(np.ones((2, 2)), is_final=True, note="lost 1 frame (7)")
    empty = live_image(np.ones((1, 1)), frames_seen=0)
    assert status_of(None, float("inf"), ADDRESS).text == f"nobody has answered at {ADDRESS} yet"
    assert status_of(None, 0.1, ADDRESS).text == "waiting for the first frame"
    assert status_of(empty, 0.1, ADDRESS).text == "waiting for the first frame"
    assert status_of(image, 0.1, ADDRESS).level == "live"
    assert status_of(image, 4.21, ADDRESS).text == "stale: no data for 4.2 s"
    assert status_of(final, 60.0, ADDRESS).text == "scan complete: all 10 frames are in the image"
    assert status_of(short, 0.1, ADDRESS).text == (
        "incomplete: lost 3 frames; 10 of 13 frames are in the image"
    )
    assert status_of(noted, 0.1, ADDRESS).text.startswith("incomplete: lost 1 frame (7); 10 of")


def test_a_final_image_that_shows_fewer_frames_than_expected_is_never_called_complete():
    image = live_image(np.ones((2, 2)), counts={"expected": 11}, is_final=True)
    assert status_of(image, 0.1, ADDRESS).level == "incomplete"


def test_a_scan_is_complete_without_the_frames_that_were_to_be_left_out():
    told = "scan complete: all 11 frames but the 1 frame taken while settling are in the image"
    image = live_image(np.ones((2, 2)), counts={"expected": 11, "settling": 1}, is_final=True)
    assert status_of(image, 0.1, ADDRESS).text == told


def test_rates_are_taken_over_the_last_two_seconds_of_one_scan():
    meter = RateMeter()
    assert meter.rates() == {}
    for tick in range(101):
        meter.add(tick * 0.1, "a", {"recorded": tick if tick < 50 else 50 + 10 * (tick - 50)})
    assert meter.rates()["recorded"] == pytest.approx(100)
    meter.add(10.1, "b", {"recorded": 3})
    assert meter.rates() == {}
