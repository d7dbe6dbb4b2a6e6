"""A program that imports nothing of ours follows a scan, and has what our client has, byte for byte."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from launch.config.run_file import client_of
from stream.live.client import LiveReconstruction
from stream.live.image import LiveImage
from stream.wire.keys import create_keys
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream import plain_client
from tests.helpers.stream.documents import PositionRun


def assert_both_see_the_same(
    pipeline: Pipeline, sample: ScannedSample, folder: Path, series: str, *keys: Path
) -> None:
    """Play a series that both follow; `keys` are the server's public and a client's secret one."""
    image, printed = folder / "image.npz", folder / "printed"
    command = [sys.executable, "-I", plain_client.__file__, pipeline.live_address, image, *keys]
    seen: list[LiveImage] = []
    plain: list[subprocess.Popen[bytes]] = []

    def until_it_is_there() -> Iterator[np.ndarray]:
        yield from sample.frames[:60]
        pipeline.until(lambda: pipeline.is_shown(series))
        with printed.open("wb") as output:
            plain.append(subprocess.Popen(command, stdout=output, stderr=output))
        pipeline.until(lambda: printed.stat().st_size or plain[0].poll() is not None)
        yield from sample.frames[60:]

    def is_final() -> bool:
        if (found := live.poll()) is not None:
            seen.append(found)
        return bool(seen) and seen[-1].scan == pipeline.scan(series).name and seen[-1].is_final

    pipeline.publish(PositionRun(series, sample.positions_m).documents())
    peers, key = keys or (None, None)
    with LiveReconstruction(pipeline.live_address, follow=True, key=key, peers=peers) as live:
        pipeline.play_frames(until_it_is_there(), series, len(sample))
        pipeline.until(is_final)
    pipeline.until(lambda: plain[0].poll() is not None)
    said = printed.read_text()
    assert plain[0].returncode == 0, said
    assert len(said.splitlines()) > 1, f"it was to see the image grow: {said}"
    with np.load(image) as maps:
        assert {name: maps[name].tobytes() for name in maps} == {
            name: layer.tobytes() for name, layer in seen[-1].maps.items()
        }
        assert maps["source"].any()


def test_a_client_of_sixty_lines_follows_a_scan(
    pipeline: Pipeline, sample: ScannedSample, tmp_path: Path
) -> None:
    assert_both_see_the_same(pipeline, sample, tmp_path, "plain")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_and_with_keys_which_the_runs_own_page_has_and_who_has_none_is_counted(
    run_folder: Path, sample: ScannedSample
) -> None:
    ours, alice = (create_keys(run_folder / "keys", name) for name in ("pipeline", "alice"))
    (run_folder / "clients").mkdir()
    shutil.copy(alice.with_suffix(".key"), run_folder / "clients")
    settings = f"live.key={ours}", f"live.peers={run_folder / 'clients'}"
    with Pipeline(run_folder, sample, *settings, "viewer.enabled=true", "viewer.port=0") as pipeline:
        assert_both_see_the_same(pipeline, sample, run_folder, "keys", ours.with_suffix(".key"), alice)
        run = pipeline.supervisor.run
        page = client_of(run, "stitcher", run.config.live)
        with LiveReconstruction(page.address, key=page.key, peers=page.peers) as live:
            pipeline.until(lambda: live.poll() is not None)
        with Socket("DEALER", Endpoint(address=pipeline.live_address)):
            pipeline.until(lambda: strangers(pipeline)["live"]["no_handshake"] > 0)
        assert strangers(pipeline)["positions"] == {"wrong_key": 0, "no_handshake": 0}
        assert [words for words in pipeline.notices if "connections without a handshake" in words]


def strangers(pipeline: Pipeline) -> dict[str, dict[str, int]]:
    """What the page says of who was not let in, by the door and the reason."""
    with urlopen(f"{pipeline.supervisor.address('viewer')}/status.json", timeout=5.0) as answer:
        told: dict[str, dict[str, int]] = json.load(answer)["strangers"]
    return told
