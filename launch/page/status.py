"""What is to be said about the live image in one line, and how fast frames move through the stages."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from stream.live.image import LiveImage
from stream.record.account import STAGES, counted
from stream.wire.handshake import SILENCE_S
from stream.wire.messages import RunLevel, RunState

RATE_WINDOW_S = 2.0
MOST_NAMED = 3  # scans in one sentence
MOVING = {"recorded", "images", *STAGES.values()}  # what is expected or missing has no speed
_MISSING = {"lost": "lost", "no_position": "no position for", "pending": "pending"}
_FINAL = ("complete", "incomplete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the scan stands: a level that decides the colour and a sentence for people."""

    level: RunLevel
    text: str


def status_of(image: LiveImage | None, age_s: float, address: str, state: RunState | None = None) -> Status:
    """Returns how the scan stands.

    Parameters
    ----------
    image : LiveImage or None
        The newest image.
    age_s : float
        Seconds since the server was last heard; infinite before its first word.
    address : str
        Where the server should be.
    state : RunState or None
        What the run was seen to do, if anybody has told lately.
    """
    is_final = image is not None and image.is_final
    if image is not None and is_final and (state is None or state.scan == image.scan):
        if state is not None and state.level in _FINAL:
            return Status(level=state.level, text=state.text)
        return _final_status(image)
    if state is not None and (age_s <= SILENCE_S or state.level != "live"):
        return Status(level=state.level, text=state.text)
    if age_s == float("inf"):
        return Status(level="waiting", text=f"nobody has answered at {address} yet")
    if age_s > SILENCE_S:
        return Status(level="stale", text=f"stale: no data for {age_s:.1f} s")
    if image is None or not image.frames_seen:
        return Status(level="waiting", text="waiting for the first frame")
    return Status(level="live", text=f"live: {image.note}" if image.note else "live")


def _final_status(image: LiveImage) -> Status:
    counts = image.counts
    missing = [f"{words} {counted(counts[name])}" for name, words in _MISSING.items() if counts.get(name)]
    # The server's note gives the numbers of the frames, which the counts cannot.
    reasons = image.note or "; ".join(missing)
    n_expected = counts.get("expected", image.frames_seen)
    return verdict(image.frames_seen, n_expected, reasons, counts.get("settling", 0))


def verdict(n_shown: int, n_expected: int, reasons: str, n_settling: int = 0) -> Status:
    """Returns what is to be said of a scan that is over.

    Parameters
    ----------
    n_shown, n_expected : int
        Frames.
    reasons : str
        What is missing and why, "" where nothing is.
    n_settling : int
        Of those expected, left out because the probe was not at rest.
    """
    n_wanted = n_expected - n_settling
    if not reasons and n_shown >= n_wanted:
        but = f" but the {counted(n_settling)} taken while settling" if n_settling else ""
        return Status(level="complete", text=f"scan complete: all {n_expected} frames{but} are in the image")
    shown = f"{n_shown} of {n_expected} frames are in the image"
    text = f"incomplete: {reasons}; {shown}" if reasons else f"incomplete: {shown}"
    return Status(level="incomplete", text=text)


def sentence_of(state: RunState) -> str:
    """Returns how a run stands, and which scans are being finished, each with how far it is, of many some."""
    scans = state.finishing
    named = sorted(scans, key=lambda scan: scan.text.startswith("waiting"))[:MOST_NAMED]
    more = f" and {len(scans) - len(named)} more" if len(scans) > len(named) else ""
    finishing = f"finishing {', '.join(f'{scan.name} ({scan.text})' for scan in named)}{more}"
    return f"{state.text}; {finishing}" if scans else state.text


class RateMeter:
    """Frames per second of every stage, over the last two seconds."""

    def __init__(self) -> None:
        self._scan = ""
        self._seen: deque[tuple[float, Mapping[str, int]]] = deque()

    def add(self, now: float, scan: str, counts: Mapping[str, int]) -> None:
        """Takes the counts of `scan` at the time `now`; another scan begins anew."""
        if scan != self._scan:
            self._scan = scan
            self._seen.clear()
        self._seen.append((now, counts))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_WINDOW_S:
            self._seen.popleft()

    def rates(self) -> dict[str, float]:
        """Returns frames/s by the names of the counts; empty before there are two readings."""
        if len(self._seen) < 2:
            return {}
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        duration_s = max(ended - began, 1e-3)
        return {
            name: max(last.get(name, 0) - first.get(name, 0), 0) / duration_s for name in MOVING & set(last)
        }
