"""Tiles as actors get them, without Ray: what goes to a node and comes back is the same, in this process."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import open_recorded
from launch.offline.task import ReconstructOptions
from launch.offline.tile_places import HERE
from launch.offline.tile_process import DECODER, TileJob, TileMessage
from launch.on_ray.cluster import Needs
from launch.on_ray.tile_actor import TileActor
from launch.on_ray.tiles import tile_needs, with_frames
from launch.on_ray.versions import own_version
from operators.engine.config import RefinerConfig
from stream.wire.codec import decode_with, encode

OPTIONS = ReconstructOptions(
    epochs=2, device="numpy", refiner=RefinerConfig(batch_size=8), tiles=2, threads=2
)


class InThisProcess:
    """A worker that answers at once."""

    pid = None

    def __init__(self, job: TileJob) -> None:
        self._actor = TileActor(own_version())
        self._answers = deque([self._actor.begin(with_frames(job))])

    def send(self, message: TileMessage, arrays: Sequence[Any]) -> None:
        self._answers.append(self._actor.exchange([bytes(part) for part in encode(message, arrays)]))

    def receive(self) -> Any:
        return decode_with(DECODER, self._answers.popleft())

    def end(self, *, at_once: bool = False) -> str:
        return "ended"


class Places:
    def start(self, job: TileJob) -> InThisProcess:
        return InThisProcess(job)

    def wait(self, workers: Sequence[InThisProcess]) -> Sequence[InThisProcess]:
        return list(workers)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiled") / "simulated.cxi"
    write_scan(path, simulate_scan(Simulation(n_rows=8, n_columns=8)), "test")
    return path


@pytest.mark.slow
def test_tiles_with_their_frames_give_bit_for_bit_what_processes_here_give(path: Path) -> None:
    with open_recorded(str(path)) as scan:
        here = reconstruct(scan, OPTIONS, places=HERE)
        there = reconstruct(scan, OPTIONS, places=Places())
    np.testing.assert_array_equal(there.object, here.object)
    np.testing.assert_array_equal(there.probe, here.probe)
    np.testing.assert_array_equal(there.error_history, here.error_history)


class LosesOne(Places):
    """The first worker is lost with its node in the first exchange."""

    def __init__(self) -> None:
        self.started: list[int] = []

    def start(self, job: TileJob) -> InThisProcess:
        self.started.append(job.number)
        return InThisProcess(job) if len(self.started) > 1 else Lost(job)


class Lost(InThisProcess):
    def send(self, message: TileMessage, arrays: Sequence[Any]) -> None:
        pass

    def receive(self) -> Any:
        if not self._answers:
            raise ConnectionResetError("its node died")
        return super().receive()

    def end(self, *, at_once: bool = False) -> str:
        return "was lost (its node died)"


def test_a_tile_whose_node_dies_is_taken_up_by_another_worker_and_the_others_go_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = LosesOne()
    with open_recorded(str(path)) as scan:
        result = reconstruct(scan, replace(OPTIONS, epochs=3), places=places)
    assert sorted(places.started) == [0, 0, 1]
    assert "tile 0 was lost (its node died); starts again from the last exchange" in caplog.text
    assert "tile 0 missed 2 of 3 epochs" in caplog.text
    assert len(result.error_history) == 3
    assert np.isfinite(result.object).all()


def test_a_tile_gets_a_gpu_where_there_are_enough_and_cores_elsewhere():
    gpus = {"CPU": 8.0, "GPU": 2.0}
    assert tile_needs([gpus, gpus], 4, 2, None) == Needs(gpus=1)
    assert tile_needs([gpus], 4, 2, None) == Needs(cpus=2)
    assert tile_needs([gpus, gpus], 4, 2, "compiled") == Needs(cpus=2)


def test_more_tiles_than_the_cluster_has_room_for_are_refused():
    with pytest.raises(
        ValueError, match=r"3 tiles with 2 cores each do not fit on the cluster, which takes 2"
    ):
        tile_needs([{"CPU": 3.0}, {"CPU": 3.0}, {"memory": 1.0}], 3, 2, "numpy")


def test_another_version_on_a_node_is_named():
    with pytest.raises(
        ValueError, match=rf"a node has ptychostream {own_version()}, and this computer 0\.0\.7"
    ):
        TileActor("0.0.7")
