"""What programs that watch a run are told of the real processes, one of which is killed."""

import json
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from stream.live.client import LiveReconstruction
from stream.record.account import account, frame_counts
from tests.helpers.launch.monitored import scraped
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOST = 7
QUICK = ("refinement.epochs=2", "refinement.first_frames=8", "viewer.enabled=true", "viewer.port=0")


def test_scrapes_while_a_stage_is_killed_agree_with_the_ledger_and_counters_never_fall(
    run_folder: Path, sample: ScannedSample
) -> None:
    seen: list[dict[tuple[str, ...], float]] = []
    with Pipeline(run_folder, sample, *QUICK) as pipeline:
        url = pipeline.supervisor.address("viewer")

        def scrape() -> dict[tuple[str, ...], float]:
            with urlopen(f"{url}/metrics") as answer:
                seen.append(scraped(answer.read().decode()))
            return seen[-1]

        def frames() -> Iterator[np.ndarray]:
            for number, frame in enumerate(sample.frames):
                if number == len(sample) // 2:
                    pipeline.until(lambda: pipeline.is_shown("killed"))
                    scrape()
                    os.kill(pipeline.supervisor.pid("refinement"), signal.SIGKILL)
                    pipeline.until(lambda: scrape()["process_restarts_total", "refinement"] == 1)
                yield frame

        pipeline.publish(PositionRun("killed", sample.positions_m).documents())
        pipeline.play_frames(frames(), "killed", len(sample), drop=frozenset([LOST]))
        scan = pipeline.outcome("killed").scan
        with LiveReconstruction(pipeline.live_address, follow=True) as client:
            pipeline.on_turn = client.poll
            pipeline.until(
                lambda: scrape()["scans_finished_total",] == 1 and seen[-1]["clients", "live"] == 2
            )
        with urlopen(f"{url}/status.json") as answer:
            told = json.loads(answer.read())
    last = seen[-1]
    for stage in ("positions", "refinement", "stitcher"):
        known = account(scan, stage)
        assert last["frames_total", stage, "done"] == known.done == len(sample) - 1
        assert last["frames_pending", stage] == last["backlog_frames", stage] == known.pending == 0
        assert told["frames"][stage]["recorded"] == known.recorded
    assert (last["frames_total", "subscriber", "lost"], last["frames_expected_total",]) == (1, len(sample))
    assert last["latency_seconds_count", "stitcher"] == last["latency_seconds_count", "subscriber"]
    assert last["images_total",] == scan.count("stitcher", "version") > 0
    counters = [name for name in seen[0] if name[0].endswith(("_total", "_bucket", "_count", "_sum"))]
    assert all(a[name] <= b[name] for a, b in pairwise(seen) for name in counters)
    assert told["counts"] == frame_counts(scan)
    running = {process["name"]: process for process in told["processes"]}
    assert running.keys() == {spec.name for spec in pipeline.supervisor.run.stages} | {"supervisor"}
    assert all(process["resident_bytes"] > 1e7 for process in running.values())
