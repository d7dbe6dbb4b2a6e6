import numpy as np

from launch.page.versions import VersionHistory
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.live_images import decode_picture, live_image


def image(version, scan="0000-a", side=20):
    return live_image(np.ones((side, side)), version=version, frames_seen=10 * version, scan=scan)


class Feed:
    def __init__(self, **told):
        self.image, self.time = None, Clock(1e9)
        self.history = VersionHistory(lambda: self.image, wall_clock=self.time, **told)

    def show(self, image):
        self.image = image
        self.time.now += 1.0
        self.history.look()

    def versions(self):
        return [kept["version"] for kept in self.history.listed()["versions"]]


def test_versions_are_kept_with_time_and_frames_and_come_back_as_they_were():
    feed = Feed()
    for version in (1, 2, 2, 5):
        feed.show(image(version))
    assert feed.history.listed()["versions"] == [
        {"version": 1, "frames": 10, "time_s": 1e9 + 1},
        {"version": 2, "frames": 20, "time_s": 1e9 + 2},
        {"version": 5, "frames": 50, "time_s": 1e9 + 4},
    ]
    header, _, maps = decode_picture(feed.history.packet("0000-a", 2))
    assert (header["version"], maps["source"].all()) == (2, True)


def test_memory_stays_within_its_bound_and_what_is_kept_covers_the_scan_evenly():
    one = Feed()
    one.show(image(1))
    n_bytes = len(one.history.packet("0000-a", 1))
    feed = Feed(most_bytes=10 * n_bytes + 200)
    for version in range(1, 201):
        feed.show(image(version))
        held = feed.versions()
        assert sum(len(feed.history.packet("0000-a", version)) for version in held) <= 10 * n_bytes + 200
    assert len(held) >= 5
    assert held[0] == 1
    assert set(np.diff(held)) == {held[1] - held[0]}
    assert held[-1] > 160


def test_a_new_scan_begins_anew_and_what_is_not_kept_is_said_to_be_gone():
    feed = Feed()
    feed.show(None)
    feed.show(live_image(np.ones((1, 1)), frames_seen=0))
    assert feed.versions() == []
    feed.show(image(7))
    feed.show(image(1, "0001-b"))
    assert feed.history.listed()["scan"] == "0001-b"
    assert feed.versions() == [1]
    assert feed.history.packet("0000-a", 7) is None
    assert feed.history.packet("0001-b", 2) is None


def test_a_large_image_is_kept_at_half_resolution():
    feed = Feed()
    feed.show(image(1, side=1000))
    header, _, _ = decode_picture(feed.history.packet("0000-a", 1))
    assert (header["shape"], header["binning"]) == ([500, 500], 2)
