"""What is said of a run while its detector freezes and a stage stops or dies: what was seen."""

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from launch.page.run_facts import RunFacts
from launch.page.server import LiveFeed
from launch.run.progress import ProgressLine
from stream.live.client import LiveReconstruction
from stream.wire.sockets import Endpoint
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun

pytestmark = pytest.mark.slow

AT = 50  # frames, when something happens


@contextmanager
def page_of(pipeline: Pipeline) -> Iterator[Callable[[], dict]]:
    """What the page of a run says; its thread that follows the image is the test."""
    run = pipeline.supervisor.run
    feed = LiveFeed(Endpoint(address=pipeline.live_address), facts=RunFacts.of(run.folder, run.rendezvous))

    def look() -> dict:
        feed.look()
        return json.loads(feed.state())

    with feed.live:
        yield look


@pytest.fixture
def says(pipeline: Pipeline) -> Iterator[Callable[[], dict]]:
    with page_of(pipeline) as look:
        yield look


def play(
    pipeline: Pipeline,
    sample: ScannedSample,
    series: str,
    happens: Callable[[], object],
    *,
    is_shown: bool = True,
) -> None:
    """Plays a series; after `AT` frames, when they are shown, the detector holds its breath meanwhile."""

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(sample.frames):
            if number == AT:
                pipeline.until(
                    lambda: pipeline.recorded(series) == AT and pipeline.is_shown(series) >= is_shown
                )
                happens()
            yield frame

    pipeline.publish(PositionRun(series, sample.positions_m).documents())
    pipeline.play_frames(frames(), series, len(sample))
    pipeline.outcome(series)


def test_a_detector_that_freezes_is_called_silent_on_the_page_and_by_clients(
    pipeline: Pipeline, sample: ScannedSample, says: Callable[[], dict]
) -> None:
    told = {}

    def freeze() -> None:
        pipeline.until(lambda: "silent for" in says()["text"])
        told.update(says())
        with LiveReconstruction(pipeline.live_address) as live:
            pipeline.until(lambda: live.poll() is None and live.state and "silent" in live.state.text)

    play(pipeline, sample, "frozen", freeze)
    assert told["level"] == "stale"
    assert told["text"].startswith("detector: silent for ")
    assert "waiting for the first frame" not in json.dumps(told["stages"])
    pipeline.until(lambda: says()["level"] == "complete")
    texts = [(event["source"], event["level"]) for event in says()["events"]]
    assert ("detector", "warning") in texts
    assert texts.index(("detector", "info")) > texts.index(("detector", "warning"))


def test_while_inference_is_dead_page_and_terminal_say_that_it_restarts_and_then_no_more(
    run_folder: Path, demo_sample: ScannedSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.run.processes.FIRST_PAUSE_S", 2.0)  # it is back before everybody has said so
    said: dict[str, list[str]] = {"dead": [], "back": []}
    with Pipeline(run_folder, demo_sample, "network.weights=demo") as pipeline, page_of(pipeline) as says:

        def sentences() -> list[str]:
            """What the page says, what it says of inference, and the line of the terminal."""
            page, terminal = says(), io.StringIO()
            rows = {row["name"]: row["text"] for row in page["stages"]}
            supervisor = pipeline.supervisor
            ProgressLine(Console(file=terminal)).show(supervisor.scans(), supervisor.state)
            return [page["text"], f"inference: {rows['inference']}", terminal.getvalue()]

        def are(when: str, is_restarting: bool) -> bool:
            said[when] = sentences()
            return all(("inference: restarting" in sentence) == is_restarting for sentence in said[when])

        def die() -> None:
            os.kill(pipeline.supervisor.pid("inference"), signal.SIGKILL)
            pipeline.until(lambda: are("dead", True))
            pipeline.until(lambda: are("back", False))

        play(pipeline, demo_sample, "bereft", die)
        assert pipeline.supervisor.is_ready
        figures = pipeline.outcome("bereft").figures
    assert all("inference: restarting: was killed by signal 9" in sentence for sentence in said["dead"])
    assert not any("killed" in sentence for sentence in said["back"])
    assert figures["is_complete"]
    (event,) = (event for event in figures["events"] if "killed" in event["text"])
    assert (event["source"], event["level"]) == ("inference", "warning")


def test_a_stage_that_hangs_is_stalled_and_one_that_dies_is_restarting(
    run_folder: Path, sample: ScannedSample
) -> None:
    said: list[str] = []
    with Pipeline(run_folder, sample) as pipeline:
        pid = pipeline.supervisor.pid("refinement")

        def hang_and_die() -> None:
            os.kill(pid, signal.SIGSTOP)
            pipeline.until(lambda: "refinement: " in pipeline.supervisor.state.text)
            said.append(pipeline.supervisor.state.text)
            os.kill(pid, signal.SIGKILL)
            pipeline.until(lambda: "restarting" in pipeline.supervisor.state.text)
            said.append(pipeline.supervisor.state.text)

        play(pipeline, sample, "hanging", hang_and_die)
        state = pipeline.supervisor.state
    assert any(words in said[0] for words in ("stalled", "no sign of life"))
    assert "refinement: restarting: was killed by signal 9" in said[1]
    assert state.text.startswith("scan complete")


def test_while_an_unknown_probe_is_sought_it_says_so_and_does_not_wait_for_a_first_frame(
    run_folder: Path, sample: ScannedSample
) -> None:
    said: dict[str, None] = {}
    with Pipeline(run_folder, sample, "probe.source=data", "refinement.first_frames=90") as pipeline:

        def rows() -> dict[str, str]:
            return {row.name: row.text for row in pipeline.supervisor.state.stages}

        def half_way() -> None:
            pipeline.until(lambda: rows()["probe"] == f"finding the probe: {AT} of 90 frames are here")
            pipeline.on_turn = lambda: said.setdefault(pipeline.supervisor.state.text)

        play(pipeline, sample, "blind", half_way, is_shown=False)
        pipeline.until(lambda: rows()["probe"] == "found")
    assert any("finding the probe: step" in text for text in said)
    assert not any("waiting for the first frame" in text for text in said)
