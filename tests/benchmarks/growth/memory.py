"""How much memory stitcher and refinement take with 100,000 frames of 64 x 64, each in a process of its own.

The frames are all alike, so that nothing has to be simulated; their columns are 5 GB.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stream.record.scan import Numbers, Scan
from stream.stages.cursor import ScanCursor
from stream.stages.stage import Worker
from tests.benchmarks.growth.scans import Frames, GrowingScan
from tests.benchmarks.growth.stages import Ticks, refinement, stitcher

N_FRAMES, PER_ROW, STEP_PX = 100_000, 316, 6
FRAMES = Frames(64)


def memory_figures(folder: Path) -> Iterator[dict[str, float]]:
    """Yield the largest resident memory of each stage, GB, and what of it other processes can share.

    It is that of taking all frames and of closing the scan, the final stitching included; no epoch ends.
    """
    growing = GrowingScan(folder / "scans", FRAMES, _raster)
    growing.add(N_FRAMES)
    for name in ("stitcher", "refinement"):
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(growing.scan.folder), name],
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
            check=True,
        )
        memory_gb = json.loads(done.stdout)
        yield {
            f"{name}_rss_1e5_gb": memory_gb["VmHWM"],
            f"{name}_in_files_1e5_gb": memory_gb["RssFile"],
        }


def main(folder: Path, name: str) -> None:
    """Let the stage `name` take all frames of a scan and print the memory it took as JSON."""
    scan, clock = Scan(folder), Ticks()
    own = folder.parent.parent
    stage: Worker = (
        refinement(FRAMES, own) if name == "refinement" else stitcher(FRAMES, own, uses_refinement=False)
    )
    cursor = ScanCursor(stage, scan, clock)
    n_turns = N_FRAMES // stage.batch_size + 20
    for _ in range(n_turns):
        cursor.turn()
    cursor.close()
    print(json.dumps(_memory_gb()))


def _memory_gb() -> dict[str, float]:
    """Return the lines of memory in what the system tells of this process.

    The largest that `getrusage` knows may be that of the process which has started this one.
    """
    rows = (row.split() for row in Path("/proc/self/status").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 / 1e9 for row in rows if row[-1] == "kB"}


def _raster(numbers: Numbers) -> np.ndarray:
    return STEP_PX * np.stack(np.divmod(numbers, PER_ROW), axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
