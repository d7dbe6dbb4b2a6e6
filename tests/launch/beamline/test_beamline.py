import subprocess
import sys
import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

from bluesky import RunEngine
from bluesky.utils import FailedStatus

from launch.beamline.flown import (
    BeamlineConfig,
    FlyingDetector,
    FlyingStage,
    HeardPublisher,
    PublisherNotHeardError,
    simulated_fly_scan,
)
from launch.beamline.simulation import Simulation, simulate_scan
from stream.detector.config import DetectorConfig
from stream.documents.config import PositionsConfig
from stream.documents.position_reader import PositionFields, PositionReader
from stream.record.account import account
from stream.record.scan import scans_in
from stream.stages.ingest.subscriber import Subscriber
from stream.stages.positions import Positions
from stream.wire.sockets import Endpoint, EndpointError, Socket, wait_for_message
from tests.helpers.stream.clock import Clock

HERE = Endpoint(address="tcp://127.0.0.1:*", bind=True)
SIMULATION = Simulation(n_rows=5, n_columns=6, seed=3)
DEADLINE_S = 60.0


def test_the_stage_hands_out_each_reading_once_and_not_before_its_time():
    clock = Clock()
    stage = FlyingStage(np.arange(20.0).reshape(10, 2) * 1e-6, rate_hz=10.0, clock=clock)
    assert list(stage.collect_pages()) == []
    stage._started_at = clock.now
    collected = []
    for clock.now in (100.05, 100.31, 100.31, 100.95, 105.0, 106.0):
        collected += [page["data"] for page in stage.collect_pages()]
    assert [len(data["stage-y"]) for data in collected] == [3, 6, 1]
    assert np.concatenate([data["stage-x"] for data in collected]).tolist() == pytest.approx(
        np.arange(1, 20, 2).tolist()
    )


def test_a_flown_scan_publishes_documents_that_the_position_reader_understands():
    documents = []
    positions_m = np.random.default_rng(0).uniform(0, 1e-5, (12, 2))
    detector = FlyingDetector(lambda: None)
    engine = RunEngine()
    engine.subscribe(lambda name, document: documents.append((name, document)))
    engine(simulated_fly_scan(FlyingStage(positions_m, 200.0), detector, {"detector_series_id": "s1"}))
    detector.close()

    start = documents[0][1]
    assert start["plan_name"] == "simulated_fly_scan"
    assert start["detector_series_id"] == "s1"
    reader = PositionReader(PositionFields(unit="um"))
    numbers, raw, *_ = zip(*[reader.read(name, document) for name, document in documents], strict=True)
    np.testing.assert_array_equal(np.concatenate(numbers), np.arange(12))
    np.testing.assert_allclose(reader.to_metres(np.concatenate(raw)), positions_m, atol=1e-15)


@pytest.mark.allow_error_log
def test_a_detector_that_fails_fails_the_plan():
    def play():
        raise OSError("the cable is out")

    detector = FlyingDetector(play)
    engine = RunEngine()
    documents = []
    engine.subscribe(lambda name, document: documents.append((name, document)))
    with pytest.raises(FailedStatus, match="the cable is out"):
        engine(simulated_fly_scan(FlyingStage(np.zeros((2, 2)), 100.0), detector, {}))
    detector.close()
    assert documents[-1][1]["exit_status"] == "fail"


def test_nothing_is_published_into_the_void():
    with pytest.raises(PublisherNotHeardError, match="no position stage listens at tcp:"):
        HeardPublisher("tcp://127.0.0.1:9", timeout_s=0.1)


def test_documents_do_not_leave_the_machine_unless_somebody_says_so():
    with pytest.raises(EndpointError, match="insecure"):
        HeardPublisher("tcp://192.0.2.1:5578")


def test_a_beamline_that_is_never_told_to_go_sends_nothing(tmp_path):
    file = tmp_path / "beamline.json"
    nowhere = Endpoint(address="tcp://127.0.0.1:9")
    config = BeamlineConfig(detector=nowhere, positions=nowhere.address, simulation=SIMULATION)
    file.write_bytes(msgspec.json.encode(config, enc_hook=str))
    command = [sys.executable, "-m", "launch.beamline.flown", file, "--wait"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (1, b"the simulated beamline was not told to go\n")


@pytest.mark.slow
def test_frames_and_positions_of_two_scans_arrive_over_the_real_wires(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    subscriber = Subscriber(DetectorConfig(address=HERE.address, bind=HERE.bind), scans)
    positions = Positions(PositionsConfig(unit="um"), scans)
    stages = {Socket("PULL", HERE): subscriber, Socket("SUB", HERE): positions}
    frames_at, positions_at = (socket.address for socket in stages)
    config = BeamlineConfig(
        detector=Endpoint(address=frames_at),
        positions=positions_at,
        rate_hz=200.0,
        n_series=2,
        encoder_noise_m=1e-9,
        simulation=SIMULATION,
    )
    file = tmp_path / "beamline.json"
    file.write_bytes(msgspec.json.encode(config, enc_hook=str))
    beamline = subprocess.Popen(
        [sys.executable, "-m", "launch.beamline.flown", file, "--wait"], stdin=subprocess.PIPE
    )
    try:
        beamline.stdin.write(b"go\n" * config.n_series)
        beamline.stdin.close()
        _pump(stages, scans, beamline, n_scans=2)
        assert beamline.wait(DEADLINE_S) == 0
    finally:
        beamline.kill()
        beamline.wait()
        for socket in stages:
            socket.close()

    for index, scan in enumerate(scans_in(scans)):
        truth = simulate_scan(replace(SIMULATION, seed=SIMULATION.seed + index))
        assert account(scan, "positions").done == len(truth.frames) == 30
        np.testing.assert_array_equal(scan.column("frames").read(np.arange(30)), truth.frames)
        deviation_m = scan.column("positions_m").read(np.arange(30)) - truth.positions_m
        assert 0 < np.abs(deviation_m).max() < 1e-8


def _pump(stages, scans, beamline, n_scans):
    deadline = time.monotonic() + DEADLINE_S
    while sum(scan.count("positions", "closed") for scan in scans_in(scans)) < n_scans:
        assert time.monotonic() < deadline, "the scans did not end"
        assert not beamline.poll(), f"the beamline ended with {beamline.returncode}"
        wait_for_message(stages, 0.02)
        for socket, stage in stages.items():
            messages = []
            while (parts := socket.receive()) is not None:
                messages.append(parts)
            if messages:
                stage.handle(messages)
            stage.idle(time.monotonic())
