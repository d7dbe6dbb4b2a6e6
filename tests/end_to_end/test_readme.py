"""The lines of Python that README and documentation show work against a running pipeline."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.documentation import all_blocks
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun

ADDRESS = "tcp://127.0.0.1:5810"
BLOCKS = [block for block in all_blocks() if block.mark == "pipeline"]


def test_the_readme_shows_how_to_subscribe_in_six_lines() -> None:
    (block,) = [block for block in BLOCKS if block.page == "README.md"]
    assert "LiveReconstruction" in block.text
    assert len([line for line in block.text.splitlines() if line.strip()]) <= 6


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=map(str, BLOCKS))
def test_what_a_page_shows_follows_a_scan_to_its_end(
    pipeline: Pipeline, sample: ScannedSample, tmp_path: Path, number: int
) -> None:
    text = BLOCKS[number].text
    assert ADDRESS in text
    script, printed = tmp_path / "block.py", tmp_path / "printed"
    script.write_text(text.replace(ADDRESS, pipeline.live_address))
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
