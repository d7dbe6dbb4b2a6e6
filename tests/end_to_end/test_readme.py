"""The lines of Python that the README shows work against a running pipeline."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.documents import PositionRun
from tests.helpers.pipeline import Pipeline
from tests.helpers.sample import ScannedSample

README = Path(__file__).resolve().parents[2] / "README.md"
ADDRESS = "tcp://127.0.0.1:5810"
BLOCKS = [
    block
    for block in re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    if "LiveReconstruction" in block
]


def test_the_readme_shows_how_to_subscribe_in_six_lines() -> None:
    assert BLOCKS, "README.md has no python block with LiveReconstruction"
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 6


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_what_the_readme_shows_follows_a_scan_to_its_end(
    pipeline: Pipeline, sample: ScannedSample, tmp_path: Path, number: int
) -> None:
    assert ADDRESS in BLOCKS[number]
    script, printed = tmp_path / "block.py", tmp_path / "printed"
    script.write_text(BLOCKS[number].replace(ADDRESS, pipeline.live_address))
    series = f"readme-{number}"
    pipeline.publish(PositionRun(series, sample.positions_m).documents())

    def frames_until_the_reader_is_there() -> Iterator[np.ndarray]:
        yield from sample.frames[:60]
        pipeline.until(lambda: pipeline.is_shown(series))
        with printed.open("wb") as output:
            readers.append(subprocess.Popen([sys.executable, "-u", script], stdout=output, stderr=output))
        pipeline.until(lambda: printed.stat().st_size or readers[0].poll() is not None)
        yield from sample.frames[60:]

    readers: list[subprocess.Popen[bytes]] = []
    pipeline.play_frames(frames_until_the_reader_is_there(), series, len(sample))
    pipeline.outcome(series)
    pipeline.until(lambda: readers[0].poll() is not None)
    assert readers[0].returncode == 0, printed.read_text()
    assert len(printed.read_text().splitlines()) > 1
