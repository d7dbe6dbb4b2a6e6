"""Measures the resolution of a result: `python -m launch.offline.halves_process SCAN RESULT.cxi`.

Two halves of the scan's frames are reconstructed; how they agree is added to the result, and the figures are
printed as JSON. It has the lowest priority: whatever else runs is more urgent.
"""

import argparse
import sys
from pathlib import Path

from launch.child_process import work_in_background
from launch.offline.reconstruct import half_data_correlation
from launch.offline.recorded import open_recorded
from launch.offline.task import options_for
from launch.results.cxi import add_halves
from stream.plain_json import plain_json


def main(arguments: list[str] | None = None) -> int:
    """Adds the correlation; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.offline.halves_process", description=__doc__)
    parser.add_argument("scan", help="folder of its record")
    parser.add_argument("result", type=Path)
    parser.add_argument("--parent", type=int, help="process id of the recorder: this process dies with it")
    options = parser.parse_args(arguments)
    work_in_background(options.parent)
    try:
        with open_recorded(options.scan) as scan:
            preprocess = scan.preprocess() if scan.preprocess else None
            halves = half_data_correlation(scan, options_for(scan, {}), preprocess=preprocess)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(plain_json(add_halves(options.result, halves)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
