"""How much memory the refinement of a large scan takes, measured in a process of its own.

The scan of the benchmark lies fifty times side by side: 20 000 frames that fit together, which nothing has to
be simulated for.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from operators.engine.backends import get_backend
from operators.engine.config import RefinerConfig
from operators.engine.refiner import Refiner
from tests.benchmarks.engines.data import N_PIXELS, SIDE, STEP
from tests.benchmarks.engines.engine_scan import EngineScan

N_COPIES = 50
COPIES_PER_ROW = 10


def memory_figures(path: Path) -> dict[str, float]:
    """Returns the largest resident memory, GB, while the frames are appended and refined once."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.engines.memory", str(path)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        check=True,
    )
    return {"memory_20000_frames_gb": json.loads(done.stdout)["peak_gb"]}


def main(path: Path) -> None:
    """Refines all copies of the scan at `path` once and prints the memory it took as JSON."""
    scan = EngineScan.load(path)
    refiner = Refiner(RefinerConfig(), scan.probe[None], run_update=get_backend("auto").update)
    n_frames, apart_px = len(scan.corners), N_PIXELS + STEP * SIDE
    for copy in range(N_COPIES):
        numbers = range(copy * n_frames, (copy + 1) * n_frames)
        origin_px = apart_px * np.array(divmod(copy, COPIES_PER_ROW))
        refiner.append(numbers, scan.patterns, scan.corners + origin_px.astype(float))
    while refiner.epoch < 1:
        refiner.step()
    assert refiner.snapshot().n_frames == N_COPIES * n_frames
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"peak_gb": peak_gb}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
