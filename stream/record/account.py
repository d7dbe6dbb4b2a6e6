"""The account of a scan: where every frame is, what is missing, and how long it took to be seen."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.record.handover import awaits_finishing
from stream.record.passage import NONE, Passage, merged
from stream.record.scan import Numbers, Scan, State

# What a stage has done to a frame that it is through with, as counts name it.
STAGES = {"inference": "inferred", "stitcher": "mosaicked", "refinement": "refined"}
DONE_AT = {
    "subscriber": "received_s",
    "positions": "placed_s",
    "inference": "inferred_s",
    "refinement": "refined_s",
    "stitcher": "mosaicked_s",
}
"""The stages that frames pass, in their order, and the column that has when each was done."""
UNPLACED = ("no_position", "settling")  # what keeps the position stage from placing a frame
_UPSTREAM = {
    State.PENDING: "never saw",
    State.BAD: "could not read",
    State.NO_ROOM: "no room for",
}
RECENT_FRAMES = 512  # over which time to image is quoted while the scan runs

Ranges = list[tuple[int, int]]  # first and last of frames that are neighbours


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Where every frame of a scan is, for one stage, at any moment.

    expected = recorded + lost + awaited, and recorded = done + pending + all of dropped. Nothing is awaited
    any more when the subscriber has closed the scan.
    """

    expected: int
    recorded: int
    lost: int
    awaited: int
    done: int
    pending: int
    dropped: dict[str, int]

    @classmethod
    def of_counts(
        cls, recorded: NDArray[np.int64], of_stage: NDArray[np.int64], n_missed: int, expected: int
    ) -> "Account":
        """Returns the account of a stage from how many frames are in each `State`.

        Parameters
        ----------
        recorded : (state,) int64
            Of the subscriber, without frames from before the one at which the series was joined.
        of_stage : (state,) int64
            Of the stage, of the frames that are recorded.
        n_missed : int
            Frames from before the series was joined.
        expected : int
        """
        n_recorded = int(recorded[State.DONE])
        return cls(
            expected=expected,
            recorded=n_recorded,
            lost=int(recorded[State.DONE + 1 :].sum()) + n_missed,
            awaited=expected - int(recorded[State.PENDING + 1 :].sum()) - n_missed,
            done=int(of_stage[State.DONE]),
            pending=n_recorded - int(of_stage[State.PENDING + 1 :].sum()),
            dropped={
                state.name.lower(): int(n)
                for state, n in zip(State, of_stage, strict=True)
                if state > State.DONE and n
            },
        )

    @property
    def is_complete(self) -> bool:
        """Whether every expected frame is done."""
        return self.done == self.expected


class Accounts:
    """The account of a scan for whoever asks while it runs: each time costs what is new since the last.

    Parameters
    ----------
    scan : Scan
    """

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._passages: dict[str, Passage] = {}
        self._newest: dict[str, int] = {}  # that a stage is done with
        self._begun: set[str] = set()  # stages that have, and need not be looked for again

    def of(self, stage: str) -> Account:
        """Returns what has become of every frame at `stage` by now."""
        scan = self._scan
        if not self._has_begun(stage):  # every frame that is recorded would have to be kept for it
            passage = self._look("subscriber")
            of_stage = np.zeros(len(State), np.int64)
        else:
            passage = self._look(stage)
            of_stage = passage.n_by_state()
        # Of a series that was joined what is before is lost from the beginning, though marked so at its end.
        expected = max(passage.n_frames, scan.count("subscriber", "announced"))
        return Account.of_counts(passage.n_by_state(0), of_stage, passage.n_missed, expected)

    def frame_counts(self) -> dict[str, int]:
        """Returns how many frames are where, for people who watch; of the stages, those that have begun."""
        recorded, positions = self.of("subscriber"), self.of("positions")
        stages = {key: self.of(stage) for stage, key in STAGES.items() if self._has_begun(stage)}
        counts = {
            "expected": recorded.expected,
            "recorded": recorded.recorded,
            "lost": recorded.lost,
            **{name: positions.dropped.get(name, 0) for name in UNPLACED},
            **{key: stage.done for key, stage in stages.items()},
        }
        on_the_way = recorded.recorded - sum(counts[name] for name in UNPLACED)
        image = stages.get(STAGES["stitcher"])
        if image is not None:  # it hears of frames that are not placed in a while
            on_the_way = image.pending
            on_the_way -= sum(max(counts[name] - image.dropped.get(name, 0), 0) for name in UNPLACED)
        counts["pending"] = max(on_the_way, 0)
        if STAGES["inference"] in stages:
            counts["deferred"] = min(self._n_deferred("inference"), counts["pending"])
        return counts

    def _n_deferred(self, stage: str) -> int:
        """Return how many frames wait at a stage that is done with a newer one, as of the last look."""
        return int(np.searchsorted(self._passages[stage].pending(), self._newest[stage]))

    @property
    def is_shown(self) -> bool:
        """Whether every recorded frame is in the live image, or never will be."""
        return not self.of("stitcher").pending

    def _has_begun(self, stage: str) -> bool:
        if stage not in self._begun and has_begun(self._scan, stage):
            self._begun.add(stage)
        return stage in self._begun

    def _look(self, stage: str) -> Passage:
        passage = self._passages.setdefault(stage, Passage(self._scan, ("subscriber", stage)))
        self._newest[stage] = max(self._newest.get(stage, 0), int(passage.look().max(initial=0)))
        return passage


def inputs_of(stages: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Returns which stages have to be done with a frame before each of these `stages` may take it.

    In the order of the way of the data; what handles no single frames is left out.
    """
    first = "inference" if "inference" in stages else "refinement"
    inputs: dict[str, tuple[str, ...]] = {
        "positions": ("subscriber",),
        "inference": ("subscriber",),
        "refinement": ("subscriber", "positions", *("inference",) * (first == "inference")),
        "stitcher": ("subscriber", "positions", first),
    }
    return {stage: before for stage, before in inputs.items() if stage in stages}


def total(accounts: Iterable[Account]) -> Account:
    """Returns the account of several scans together."""
    held, dropped = list(accounts), Counter[str]()
    for of_scan in held:
        dropped.update(of_scan.dropped)
    names = (name for name in Account.__struct_fields__ if name != "dropped")
    return Account(
        **{name: sum(getattr(of_scan, name) for of_scan in held) for name in names}, dropped=dict(dropped)
    )


def account(scan: Scan, stage: str) -> Account:
    """Returns what became of every frame at `stage`."""
    return Accounts(scan).of(stage)


def frame_counts(scan: Scan) -> dict[str, int]:
    """Returns how many frames are where, as `Accounts.frame_counts`."""
    return Accounts(scan).frame_counts()


def has_begun(scan: Scan, stage: str) -> bool:
    """Says whether `stage` has a ledger in this scan: it takes part in the run, and has opened the scan."""
    return (scan.folder / "ledger" / stage).exists()


def shares(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns where the frames expected are, by the words that people read; they add up to all of them.

    Pending is what is recorded and on its way into the image, left out what was given up on that way.
    `counts` are those of `frame_counts`, of any moment.
    """
    names = ("mosaicked", "no_position", "settling", "lost")
    in_image, unplaced, settling, lost = (counts.get(name, 0) for name in names)
    away = in_image + unplaced + settling
    recorded = max(counts.get("recorded", 0), away)  # counted a moment before the others
    rest = recorded - away
    pending = min(counts.get("pending", rest), rest)
    return {
        "in the image": in_image,
        "pending": pending,
        "left out": rest - pending,
        "without position": unplaced,
        "settling": settling,
        "lost": lost,
        "to come": max(counts.get("expected", 0) - recorded - lost, 0),
    }


def shares_in_words(counts: Mapping[str, int], *, is_final: bool = False) -> str:
    """Returns `shares` in words, without those of no frame: "625 expected: 613 in the image, 12 lost".

    Of those pending it is said how many the network has put off for newer ones.

    What is pending when the scan `is_final` stays out of the image.
    """
    held = shares(counts)
    if is_final:
        held["left out"] += held.pop("pending")
    n_deferred = min(counts.get("deferred", 0), held.get("pending", 0))
    added = {"pending": f" ({n_deferred} deferred)" if n_deferred else ""}
    parts = [
        f"{n} {words}{added.get(words, '')}" for words, n in held.items() if n or words == "in the image"
    ]
    return f"{sum(held.values())} expected: {', '.join(parts)}"


def incompleteness(scan: Scan) -> str:
    """Returns "" if every expected frame is in the picture, otherwise what is missing, by number.

    A frame is named once, with the first stage that did not get through with it.
    """
    recorded = scan.states("subscriber")
    parts = never_came(scan)
    for state, what in _UPSTREAM.items():
        parts += _listed(what, np.flatnonzero(recorded == state))
    good = recorded == State.DONE
    for stage in ("positions", "inference", "refinement", "stitcher"):
        if has_begun(scan, stage) or stage == "positions":
            states = scan.states(stage)[: len(good)]
            done, bad = states == State.DONE, states == State.BAD
            if stage == "positions":
                good &= states != State.SETTLING  # left out as it was asked for: nothing is missing
                parts += _listed("no position for", np.flatnonzero(good & ~done))
            else:
                parts += _listed(f"{stage} could not use", np.flatnonzero(good & bad))
                parts += _listed(f"{stage} did not finish", np.flatnonzero(good & ~done & ~bad))
            good &= done
    if not len(recorded):
        parts.append("no frames")
    if awaits_finishing(scan):
        parts.append("not finished yet: a run into the same folder goes on with it")
    return "; ".join(parts)


def never_came(scan: Scan) -> list[str]:
    """Returns which frames of a closed scan never came and why that may be, in words; none if all came."""
    recorded, joined = scan.states("subscriber"), scan.count("subscriber", "joined")
    lost = np.flatnonzero(recorded == State.LOST)
    came = np.flatnonzero((recorded != State.PENDING) & (recorded != State.LOST))
    end = int(came[-1]) + 1 if came.size else 0
    if scan.count("subscriber", "announced") <= end:
        end = len(recorded)
    before, within, after = np.split(lost, np.searchsorted(lost, [joined, max(joined, end)]))
    parts = [f"{words}: the run joined at frame {joined}" for words in _listed("not received", before)]
    return [*parts, *_listed("lost", within), *_listed("fewer than announced:", after)]


def _listed(what: str, numbers: Numbers) -> list[str]:
    return [f"{what} {frames_in_words(numbers)}"] if numbers.size else []


def frames_in_words(numbers: Numbers, most: int = 4) -> str:
    """Returns how many frames and which, as ranges: "92 frames (533-624)".

    Parameters
    ----------
    numbers : (frame,) int64, ascending
    most : int
        Ranges that are named; of the others it is said how many frames they hold.
    """
    n = len(numbers)
    if not n:
        return counted(n)
    # A scan may have lost every other frame of a million: only the ranges that are named are cut out.
    ends = [*(np.flatnonzero(np.diff(numbers) > 1)[:most] + 1).tolist(), n][:most]
    more = f" and {n - ends[-1]} more" if n > ends[-1] else ""
    return f"{counted(n)} ({spelt(ranges_of(numbers[: ends[-1]]))}{more})"


def ranges_of(numbers: Numbers) -> Ranges:
    """Returns first and last of each run of neighbours in `numbers`, (frame,) int64, ascending."""
    if not numbers.size:
        return []
    breaks = np.flatnonzero(np.diff(numbers) > 1)
    firsts, lasts = numbers[np.append(0, breaks + 1)], numbers[np.append(breaks, -1)]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def spelt(ranges: Ranges) -> str:
    """Returns ranges as people write them: "0-29, 61"."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def counted(n_frames: int) -> str:
    """Returns "1 frame", "2 frames"."""
    return f"{n_frames} frame{'s' * (n_frames != 1)}"


class Delay:
    """How long frames took from the end of exposure to what a stage made of them.

    Detector and computer clocks differ by an unknown offset. The fastest frame on its way, of all recorded so
    far, is taken as the zero of that path, so time spent in any queue counts and the offset does not. Frames
    of which a time is not known (NaN) are left out.

    Parameters
    ----------
    scan : Scan
    stage_column : str
        The column with the time at which the stage published.
    """

    def __init__(self, scan: Scan, stage_column: str = "mosaicked_s") -> None:
        self._scan, self._stage_column = scan, stage_column
        self._recorded, self._fastest_s = Passage(scan, ("subscriber",)), np.inf
        self._shown, self._last = Passage(scan, ("stitcher",)), NONE

    def seconds(self, numbers: Numbers) -> NDArray[np.float64]:
        """Returns (frame,) float64 seconds, of those of the recorded frames `numbers` that are published."""
        if not numbers.size or not self._scan.has(self._stage_column):
            return np.zeros(0)
        self._look()
        published_s = self._scan.column(self._stage_column).read(numbers)
        received_s = self._scan.column("received_s").read(numbers)
        path_s = received_s - self._scan.column("exposed_s").read(numbers)
        took_s = (published_s - received_s + path_s - self._fastest_s)[published_s > 0]
        return took_s[np.isfinite(took_s)]

    def recent_ms(self) -> tuple[float, float] | None:
        """Returns time to image as it is quoted while a scan runs: of the last frames that are in the image.

        Median and 99th percentile in milliseconds over `RECENT_FRAMES`, None while there is no image.
        """
        self._last = merged(self._last, self._shown.look())[-RECENT_FRAMES:]
        return percentiles_ms(self.seconds(self._last))

    def _look(self) -> None:
        """Take up the frames that came since: what was looked at once need not be read again."""
        new = self._recorded.look()
        if new.size:
            path_s = self._scan.column("received_s").read(new) - self._scan.column("exposed_s").read(new)
            fastest_s = np.min(path_s, initial=self._fastest_s, where=np.isfinite(path_s))
            self._fastest_s = float(fastest_s)


def time_to_image_s(scan: Scan, stage_column: str = "mosaicked_s") -> NDArray[np.float64]:
    """Returns (frame,) float64 seconds from the end of exposure to publication, for the frames published."""
    return Delay(scan, stage_column).seconds(scan.done("subscriber"))


def percentiles_ms(seconds: NDArray[np.float64]) -> tuple[float, float] | None:
    """Returns median and 99th percentile in milliseconds, None of no times."""
    if not seconds.size:
        return None
    p50, p99 = np.percentile(seconds * 1e3, [50, 99])
    return float(p50), float(p99)


def time_to_image_words(times_ms: tuple[float, float], window: str = f"last {RECENT_FRAMES} frames") -> str:
    """Returns median and 99th percentile of time to image as every surface says them, with their window."""
    return "time to image, {}: median {:.0f} ms, 99 % {:.0f} ms".format(window, *times_ms)
