"""The live image as PVs: what another implementation of PV Access reads is what the client has."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.config.run_file import StageSpec, new_run
from launch.page.picture import Drawing
from launch.pva.service import LivePvs
from launch.run.stages import PVS
from launch.run.supervisor import Supervisor
from stream.live.client import LiveReconstruction
from stream.wire.pva import Monitor, PvaError, PvServer, check_host
from tests.helpers.launch.runs import make_config
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.pva import own_network

PATIENCE_S = 20.0
PREFIX = "T:"
IMAGES = ("Amplitude", "Phase", "Sigma")

# pvaPy, in a process of its own: both bring their own libraries of EPICS.
READER = """
import json, sys
import numpy as np
import pvaccess

said = {}
for name in sys.argv[2:]:
    value = pvaccess.Channel(name).get("field()")
    if "dimension" in value.getStructureDict():
        columns, rows = (axis["size"] for axis in value["dimension"])
        pixels = value["value"][0]["floatValue"].reshape(rows, columns)
        np.save(f"{sys.argv[1]}/{name.partition(':')[2]}.npy", pixels)
        attributes = {one["name"]: one["value"][0]["value"] for one in value["attribute"]}
        seconds = value["timeStamp"]["secondsPastEpoch"]
        said[name] = {"uniqueId": value["uniqueId"], "seconds": seconds, **attributes}
    else:
        said[name] = value["value"]
print(json.dumps(said))
"""


@pytest.fixture(autouse=True)
def _has_a_network_of_its_own() -> Iterator[None]:
    with own_network():
        yield


@pytest.fixture
def door() -> Iterator[FakeDoor]:
    with FakeDoor() as door:
        door.begin("0003-star")
        yield door


def read_by_pvapy(folder: Path, names: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-c", READER, str(folder), *(PREFIX + name for name in names)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return {name.removeprefix(PREFIX): said for name, said in json.loads(result.stdout).items()}


def until(is_so: Callable[[], bool], work: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        work()


def test_another_implementation_reads_what_the_client_has(door: FakeDoor, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    object_ = (rng.uniform(0.5, 1, (24, 40)) * np.exp(1j * rng.uniform(-1, 1, (24, 40)))).astype("c8")
    object_[:8, :8] = 0  # unknown
    door.publish(object_, origin=(16, 32), frames_seen=77, epoch=2.5)
    with LiveReconstruction(door.address) as client:
        image = client.latest(PATIENCE_S)
    with PvServer() as served, LiveReconstruction(door.address, follow=True) as live:
        pvs = LivePvs(live, served, PREFIX, interval_s=0.01)
        until(lambda: bool(pvs.scan), lambda: pvs.turn(time.monotonic(), 0.1))
        said = read_by_pvapy(tmp_path, [*IMAGES, "Status", "Frames", "Version"])
    amplitude, phase, sigma = (np.load(tmp_path / f"{name}.npy") for name in IMAGES)
    known = image.coverage
    assert np.array_equal(amplitude, np.where(known, np.abs(image.object), np.nan), equal_nan=True)
    assert np.array_equal(sigma, np.where(known, image.sigma, np.nan), equal_nan=True)
    shown = Drawing(image, max(image.shape)).values("phase")
    assert np.array_equal(phase, shown.astype("f4"), equal_nan=True)
    assert np.isnan(phase[:8, :8]).all()
    assert amplitude.shape == (24, 40)
    for name in IMAGES:
        of = said[name]
        assert (of["scan"], of["version"], of["uniqueId"], of["frames_seen"]) == ("0003-star", 1, 1, 77)
        assert (of["epoch"], of["model"], of["config_hash"], of["is_final"]) == (2.5, "m", "c", False)
        assert (of["pixel_m"], of["origin_y_m"], of["origin_x_m"]) == (1e-8, 16e-8, 32e-8)
        assert abs(of["seconds"] - time.time()) < 60
    assert "without its mean and its mean ramp" in said["Phase"]["meaning"]
    assert (said["Frames"], said["Version"]) == (77, 1)
    assert said["Status"] == "live"


def test_before_the_first_image_there_is_one_pixel_of_nothing(door: FakeDoor) -> None:
    with PvServer() as served, LiveReconstruction(door.address) as live, Monitor("T:Phase", 4) as viewer:
        LivePvs(live, served, PREFIX, interval_s=0.01)
        seen: list[Any] = []
        until(lambda: bool(seen), lambda: seen.extend(filter(None, [viewer.receive()])))
    assert np.isnan(seen[0][0]["value"]).tolist() == [True]


def test_a_viewer_that_does_not_look_misses_versions_and_delays_nobody(door: FakeDoor) -> None:
    with PvServer() as served, LiveReconstruction(door.address) as live, Monitor("T:Sigma", 2) as viewer:
        pvs = LivePvs(live, served, PREFIX, interval_s=0.0)
        until(lambda: viewer.receive() is not None, lambda: pvs.turn(time.monotonic(), 0.01))
        object_, slowest_s = np.ones((256, 256), np.complex64), 0.0
        for version in range(1, 13):
            door.publish(object_, frames_seen=version)
            began = time.monotonic()
            until(lambda version=version: pvs.frames_seen == version, lambda: pvs.turn(time.monotonic(), 0.1))
            slowest_s = max(slowest_s, time.monotonic() - began)
        versions: list[int] = []

        def look() -> None:
            while (update := viewer.receive()) is not None:
                versions.append(update[0]["uniqueId"])

        until(lambda: bool(versions) and versions[-1] == 12, look)
    assert len(versions) < 12
    assert slowest_s < PATIENCE_S / 2


def test_images_are_renewed_no_more_often_than_configured(door: FakeDoor) -> None:
    class Counting:
        n_images = 0

        def post_image(self, name: str, fields: dict[str, Any]) -> None:
            self.n_images += name == "T:Phase"

        def post_scalar(self, name: str, value: int | str) -> None:
            pass

    served = Counting()
    with LiveReconstruction(door.address) as live:
        pvs = LivePvs(live, served, PREFIX, interval_s=10.0)
        door.publish(np.ones((8, 8), np.complex64))
        until(lambda: served.n_images == 2, lambda: pvs.turn(0.0, 0.1))
        door.publish(np.ones((8, 8), np.complex64))
        assert pvs.turn(4.0, 1.0) == 6.0
        assert served.n_images == 2
        until(lambda: served.n_images == 3, lambda: pvs.turn(10.5, 0.1))


def test_a_server_that_refuses_is_tried_again(door: FakeDoor, caplog: pytest.LogCaptureFixture) -> None:
    door.reject = "another version"
    with PvServer() as served, LiveReconstruction(door.address) as live:
        pvs = LivePvs(live, served, PREFIX, interval_s=0.01)
        until(lambda: "another version" in caplog.text, lambda: pvs.turn(time.monotonic(), 0.1))


@pytest.mark.slow
def test_the_process_of_a_run_serves_again_after_it_was_killed(run_folder: Path, door: FakeDoor) -> None:
    spec = StageSpec(name="pvs", builder=PVS, closes=False, is_vital=False)
    run = new_run(make_config(run_folder, live={"address": door.address}, pva={"enabled": True}), (spec,))
    door.publish(np.ones((8, 8), np.complex64), frames_seen=5)
    with Monitor("PTYCHO:Frames", 4) as viewer:
        seen: list[int] = []

        def look() -> None:
            supervisor.poll(0.05)
            seen.extend(update[0]["value"] for update in [viewer.receive()] if update)

        with Supervisor(run) as supervisor:
            supervisor.start()
            until(lambda: 5 in seen, look)
            os.kill(supervisor.pid("pvs"), signal.SIGKILL)
            until(lambda: not viewer.is_connected, look)
            seen.clear()
            door.publish(np.ones((8, 8), np.complex64), frames_seen=6)
            until(lambda: 6 in seen, look)
        until(lambda: not viewer.is_connected, viewer.receive)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.7", "beamline"])
def test_pvs_are_served_to_others_only_where_that_is_allowed(host: str) -> None:
    with pytest.raises(PvaError, match="insecure: true"):
        PvServer(host)
    check_host(host, insecure=True)
