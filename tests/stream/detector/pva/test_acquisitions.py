"""Exposures that are only counted become series whose frames have the right numbers."""

from collections.abc import Iterable

import pytest

from stream.detector.protocol import (
    DetectorMessageError,
    EncodedFrame,
    EndMessage,
    ImageMessage,
    StartMessage,
)
from stream.detector.pva.acquisitions import Acquisitions
from stream.detector.pva.ntndarray import Exposure

FRAME = EncodedFrame(shape=(2, 2), dtype="|u1", data=bytes(4))
SILENCE_S = 5.0
T0 = 1_780_000_000.0
NAME = "13SIM1:Pva1:Image"


def exposure(number: int, stamp_s: float) -> Exposure:
    return Exposure(number, stamp_s, FRAME)


class Detector:
    """A detector whose exposures come as they are made."""

    def __init__(self, first_number: int | None = None, has_clock: bool = True) -> None:
        self.acquisitions = Acquisitions(NAME, SILENCE_S, first_number)
        self.now, self._has_clock = 0.0, has_clock
        self.series: dict[str, list[int]] = {}
        self.n_starts = self.n_ends = 0

    def hold(self, number: int, age_s: float) -> None:
        """The PV was connected to and held an exposure that is so old."""
        self._keep(self.acquisitions.take(exposure(number, T0 + self.now - age_s), self.now, is_old=True))

    def expose(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.now += 0.1
            self.at(number, self.now)

    def at(self, number: int, moment_s: float) -> None:
        stamp_s = T0 + moment_s if self._has_clock else 0.0
        self._keep(self.acquisitions.take(exposure(number, stamp_s), self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._keep(self.acquisitions.look(self.now))

    def _keep(self, messages: list) -> None:
        for message in messages:
            self.n_starts += isinstance(message, StartMessage)
            self.n_ends += isinstance(message, EndMessage)
            if isinstance(message, ImageMessage):
                self.series.setdefault(message.key, []).append(message.image_id)

    @property
    def frames(self) -> list[list[int]]:
        return list(self.series.values())


@pytest.mark.parametrize("has_clock", [True, False])
def test_a_counter_set_back_begins_another_series(has_clock: bool) -> None:
    detector = Detector(has_clock=has_clock)
    detector.expose([1, 2, 3])
    detector.expose([1, 2])
    assert detector.frames == [[0, 1, 2], [0, 1]]
    assert (detector.n_starts, detector.n_ends) == (2, 1)


def test_after_silence_a_counter_that_goes_on_begins_another_series() -> None:
    detector = Detector()
    detector.expose([1, 2, 3])
    detector.wait(SILENCE_S / 2)
    detector.expose([4])
    detector.wait(SILENCE_S)
    detector.expose([5, 6])
    assert detector.frames == [[0, 1, 2, 3], [0, 1]]


def test_a_pause_of_the_detector_is_seen_though_its_exposures_waited_here() -> None:
    detector = Detector()
    detector.at(1, 0.0)
    detector.at(2, SILENCE_S + 1)
    assert detector.frames == [[0], [0]]


@pytest.mark.parametrize(
    ("numbers", "first_frame"),
    [([0, 1], 0), ([1, 2], 0), ([3, 4], 2), ([500_000, 500_001], 0)],
    ids=["from 0", "from 1", "two lost", "counts for days"],
)
def test_the_first_exposure_of_all_tells_the_first_number(numbers: list[int], first_frame: int) -> None:
    detector = Detector()
    detector.expose(numbers)
    assert detector.frames == [[first_frame, first_frame + 1]]


def test_what_is_lost_at_the_beginning_of_a_later_series_is_missed() -> None:
    counts_on, set_back = Detector(), Detector()
    counts_on.expose([501_000, 501_001])
    counts_on.wait(SILENCE_S)
    counts_on.expose([501_004])
    set_back.expose(range(1, 4))
    set_back.expose([3])
    assert counts_on.frames == [[0, 1], [2]]
    assert set_back.frames == [[0, 1, 2], [2]]


def test_gaps_and_overtaken_exposures_keep_their_numbers() -> None:
    detector = Detector()
    detector.at(1, 0.1)
    detector.at(5, 0.5)
    detector.at(4, 0.4)
    detector.at(5, 0.5)
    detector.at(6, 0.6)
    assert detector.frames == [[0, 4, 3, 4, 5]]


def test_an_exposure_of_the_series_before_is_refused() -> None:
    detector = Detector()
    detector.expose([1, 2, 3])
    detector.at(1, 1.0)
    with pytest.raises(DetectorMessageError, match="of a series that is over"):
        detector.at(4, 0.4)
    detector.at(2, 1.1)
    assert detector.frames == [[0, 1, 2], [0, 1]]


def test_what_the_pv_held_before_is_no_frame() -> None:
    detector = Detector()
    detector.hold(77, age_s=3600.0)
    detector.expose([78, 79])
    assert detector.frames == [[0, 1]]


def test_a_series_joined_on_the_way_counts_from_one(caplog: pytest.LogCaptureFixture) -> None:
    detector = Detector()
    detector.hold(77, age_s=0.1)
    detector.expose([78])
    assert detector.frames == [[76, 77]]
    assert detector.n_starts == 0
    assert "joined at image 77" in caplog.text


def test_a_connection_that_comes_back_goes_on_with_the_series() -> None:
    detector = Detector()
    detector.expose([1, 2])
    detector.hold(2, age_s=0.1)
    detector.expose([3])
    detector.hold(7, age_s=0.0)
    detector.expose([8])
    assert detector.frames == [[0, 1, 2, 6, 7]]


def test_an_ioc_started_anew_begins_another_series() -> None:
    detector = Detector()
    detector.expose([5, 6, 7])
    detector.hold(1, age_s=60.0)
    detector.expose([2, 3])
    assert len(detector.frames) == 2


def test_a_series_goes_on_after_the_process_that_recorded_it_died() -> None:
    before, after = Detector(), Detector()
    before.expose([500_001, 500_002])
    (key,) = before.series
    after.acquisitions.resume(key, 2, after.now)
    after.hold(500_003, age_s=0.1)
    after.expose([500_004])
    assert after.series == {key: [2, 3]}


def test_a_first_number_that_is_set_holds() -> None:
    detector = Detector(first_number=0)
    detector.expose([2, 3])
    assert detector.frames == [[2, 3]]
    late = Detector(first_number=10)
    with pytest.raises(DetectorMessageError, match="comes before the first, 10"):
        late.expose([9])
    late.expose([10])
    assert (late.frames, late.n_starts) == ([[0]], 1)


@pytest.mark.parametrize("number", [-1, None, "7", 2.5])
def test_a_number_that_is_none_is_refused(number: object) -> None:
    with pytest.raises(DetectorMessageError, match="wanted 0 or more"):
        Detector().at(number, 0.0)  # type: ignore[arg-type]
