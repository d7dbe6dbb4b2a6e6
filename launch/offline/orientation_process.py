"""Says what in a configuration its frames contradict: `python -m launch.offline.orientation_process SCAN`.

The first frames of a recorded scan tell signs and axes of the positions and the beam's centre. It has the
lowest priority, and takes seconds of one core; prints a JSON list of sentences.
"""

import argparse
import shlex
import sys

import numpy as np

from launch.child_process import work_in_background
from launch.offline.orient import OrientedScan, in_words, orient
from launch.offline.recorded import open_recorded
from operators.orientation.turn import Turn
from stream.plain_json import plain_json

MOST_FRAMES = 256
_OFF_PX = 4  # of the beam, pixels of a pattern: with less a probe that is refined carries the tilt


def main(arguments: list[str] | None = None) -> int:
    """Prints the sentences; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.offline.orientation_process", description=__doc__)
    parser.add_argument("scan", help="folder of its record")
    parser.add_argument("--parent", type=int, help="process id of the run: this process dies with it")
    options = parser.parse_args(arguments)
    work_in_background(options.parent)
    try:
        with open_recorded(options.scan) as scan:
            binning = scan.config.geometry.binning if scan.config else 1
            sentences = doubts_of(orient(scan, n_frames=MOST_FRAMES), options.scan, binning)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(plain_json(sentences).decode())
    return 0


def doubts_of(found: OrientedScan, scan: str, binning: int = 1) -> list[str]:
    """Returns a sentence for each thing that the frames contradict.

    Parameters
    ----------
    found : OrientedScan
    scan : str
        What it was found of, for the command that corrects it.
    binning : int
        Of the patterns.
    """
    orientation, sentences = found.orientation, []
    how = f"`ptychostream orient {shlex.quote(scan)} --write CONFIG` corrects the configuration"
    is_other_class = orientation.turn.kind != Turn()
    is_negative = orientation.turn != Turn() and orientation.sign_from == "probe"
    if orientation.is_certain and (is_other_class or is_negative):
        sentences.append(
            "positions do not lie on the frames as they are configured, but with "
            f"{in_words(orientation.turn)} (confidence {orientation.confidence:.2f}): {how}"
        )
    off_px = float(np.abs(np.subtract(found.centre, found.assumed_centre)).max())
    if orientation.is_certain and off_px > _OFF_PX * binning:
        row, column = found.centre
        sentences.append(
            f"the beam meets the detector at row {row:.1f}, column {column:.1f}, {off_px:.0f} pixels from "
            f"where patterns are cut out, {found.assumed_centre}: {how}"
        )
    return sentences


if __name__ == "__main__":
    sys.exit(main())
