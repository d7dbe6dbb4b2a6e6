"""A client of a run at kHz rates: follows the figures of every version, looks at the object once a second.

`python -m tests.benchmarks.kilohertz.client ADDRESS FILE` leaves what it got in FILE.
"""

import sys
import time
from pathlib import Path

import msgspec

from stream.atomic import write_atomically
from stream.client import LiveReconstruction

LOOK_S = 1.0


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """What a client got: images, frames in the last one, and the processor time that took it."""

    n_images: int
    frames_seen: int
    cpu_s: float


def follow(address: str, report: Path) -> None:
    """Follows the image; a report is there from the first one on, for whoever ends this process early."""
    cpu_s, look_at = time.process_time(), 0.0
    with LiveReconstruction(address, timeout_s=float("inf")) as live:
        for n_images, image in enumerate(live, start=1):
            if time.monotonic() >= look_at or image.is_final:
                look_at = time.monotonic() + LOOK_S
                assert image.object.ndim == 2
                followed = Followed(
                    n_images=n_images, frames_seen=image.frames_seen, cpu_s=time.process_time() - cpu_s
                )
                write_atomically(report, msgspec.json.encode(followed))


if __name__ == "__main__":
    follow(sys.argv[1], Path(sys.argv[2]))
