from pathlib import Path

import numpy as np
import pytest

from launch.commands.check import check, table
from launch.config.config import Config
from launch.run import network_choice
from launch.run.findings import Finding
from stream.detector.dectris import encode_message
from stream.detector.simulator import ReplayConfig, series_messages
from stream.documents.codec import encode_document
from stream.documents.panda_server import PandaServer
from stream.wire.sockets import Endpoint, Socket, wait_for_message
from tests.helpers.launch.commands import free_address
from tests.helpers.launch.runs import TRAINED_PROBE, make_config

HERE = Endpoint(address="tcp://127.0.0.1:*", bind=True)
FRAME = np.arange(64 * 80, dtype="<u2").reshape(64, 80)


def config_of(save: Path, detector: dict, **sections) -> Config:
    # from a file: for documents it would wait as long as it is told to
    np.savetxt(save / "positions.csv", [[0, 0], [0, 1], [1, 0], [1, 1]], delimiter=",")
    positions = {"source": "file", "path": str(save / "positions.csv"), "unit": "um"}
    own = {"positions": positions, "live": {"address": "tcp://127.0.0.1:*"}, "viewer": {"port": 0}}
    return make_config(save, detector=detector, **own | {"refinement": {"device": "numpy"}} | sections)


def said(findings, what: str) -> list[tuple[str, str]]:
    return [(finding.result, finding.detail) for finding in findings if finding.what == what]


def detector_of(save: Path, detector: dict, **options) -> list[tuple[str, str]]:
    return said(check(config_of(save, detector), 0.3, **options), "detector")


def series(frame: np.ndarray = FRAME, **told) -> list[bytes]:
    config = ReplayConfig(series_uid="siemens", **told)
    return [encode_message(message) for _, message in series_messages([frame], config, 1)]


@pytest.fixture
def publisher():
    """A detector that publishes, and a way to wait for who subscribes."""
    with Socket("XPUB", HERE) as socket:

        def publish(*messages: bytes) -> None:
            assert wait_for_message([socket], 20.0)
            assert socket.receive() is not None
            for message in messages:
                socket.send([message])

        yield socket.address, publish


def heard(findings, publish, *messages: bytes) -> list[Finding]:
    """What `check` finds while these messages are published as soon as it listens."""
    from threading import Thread

    thread = Thread(target=publish, args=messages)
    thread.start()
    found = list(findings)
    thread.join()
    return found


def test_a_detector_that_pushes_is_asked_what_it_is_and_loses_no_frame(tmp_path):
    with Socket("PUSH", HERE) as detector:
        (is_push, keeps) = detector_of(tmp_path, {"address": detector.address})
        assert is_push == ("OK", f"a PUSH socket answers at {detector.address}")
        assert keeps[0] == "WARNING"
        assert keeps[1].startswith("nothing was received: it pushes")
        with Socket("PULL", Endpoint(address=detector.address)) as run:
            assert detector.send([b"first"], 5.0)
            assert bytes(run.receive(5.0)[0]) == b"first"


def test_a_message_of_a_detector_that_pushes_is_taken_when_asked_for(tmp_path):
    with Socket("PUSH", HERE) as detector:
        publish = lambda *messages: [detector.send([message], 20.0) for message in messages]  # noqa: E731
        config = config_of(tmp_path, {"address": detector.address})
        findings = heard(check(config, 5.0, receives=True), publish, series()[1])
    assert said(findings, "detector")[1] == (
        "OK",
        "frame 0 of series siemens came: 64 x 80 pixels, <u2, bslz4, at most 5119 counts; "
        "no other reader gets it",
    )
    assert said(findings, "frames")[-1] == ("OK", "64 x 80 pixels give the patterns")


def test_a_frame_that_is_published_is_received_and_looked_at(tmp_path, publisher):
    address, publish = publisher
    config = config_of(tmp_path, {"address": address, "pattern": "SUB"})
    findings = heard(check(config, 5.0), publish, *series(energy_ev=9000.0, detector_pixel_m=75e-6))
    details = said(findings, "detector")
    assert details[0] == ("OK", f"a XPUB socket answers at {address}")
    assert details[1] == ("OK", "the start of series siemens came")
    assert details[2] == ("WARNING", "it says energy_ev is 9000, geometry.energy_ev is 8800")
    assert details[3][1].startswith("frame 0 of series siemens came: 64 x 80 pixels")


@pytest.mark.parametrize(
    ("changes", "message", "complaint"),
    [
        ({}, b"hello", "is not dectris-v2: 5 bytes that are not CBOR"),
        ({"format": "json"}, series()[1], "; it is dectris-v2 or jungfraujoch: set detector.format"),
        (
            {"frame_shape": (514, 514)},
            series()[1],
            "frames have shape (64, 80), detector.frame_shape is (514, 514)",
        ),
        ({"frame_dtype": "<u4"}, series()[1], "frames have dtype <u2, detector.frame_dtype is <u4"),
        ({"channel": "high"}, series()[1], "has channels ['threshold_1']: wanted 'high'"),
        ({}, series(FRAME[:32])[1], "geometry: 64 pixels of 1 x 1 around (16, 40) need rows -16..47"),
    ],
)
def test_frames_that_a_run_could_not_use_are_an_error(tmp_path, publisher, changes, message, complaint):
    address, publish = publisher
    config = config_of(tmp_path, {"address": address, "pattern": "SUB", **changes})
    result, detail = said(heard(check(config, 5.0), publish, message), "detector")[-1]
    assert result == "ERROR"
    assert complaint in detail


def test_silence_of_who_publishes_is_said(tmp_path):
    with Socket("XPUB", HERE) as detector:
        *_, last = detector_of(tmp_path, {"address": detector.address, "pattern": "SUB"})
    expected = f"no message came from {detector.address} in 0.3 s: is the detector armed?"
    assert last == ("WARNING", expected)


def test_the_wrong_pattern_is_named_with_the_right_one(tmp_path):
    with Socket("PUB", HERE) as detector:
        (found,) = detector_of(tmp_path, {"address": detector.address})
    complaint = (
        f"a PUB socket answers at {detector.address}, a PULL hears PUSH only; set detector.pattern: SUB"
    )
    assert found == ("ERROR", complaint)


def test_a_detector_that_is_not_there_is_an_error(tmp_path):
    address = free_address()
    (found,) = detector_of(tmp_path, {"address": address})
    assert found == ("ERROR", f"nobody listens at {address}: Connection refused")


def with_documents(tmp_path, address):
    positions = {"unit": "um", "address": address}
    return config_of(tmp_path, {"address": "ipc:///nobody"}, positions=positions)


def test_documents_are_received(tmp_path, run_folder):
    address = f"ipc://{run_folder}/documents"
    start = encode_document("start", {"uid": "a"})
    with Socket("XPUB", Endpoint(address=address)) as bluesky:

        def publish(message: bytes) -> None:
            assert wait_for_message([bluesky], 20.0)
            bluesky.send([message])

        findings = heard(check(with_documents(tmp_path, address), 5.0), publish, start)
    assert said(findings, "positions")[-1] == ("OK", "a document came: start")


def test_silence_of_the_documents_is_said(tmp_path, run_folder):
    address = f"ipc://{run_folder}/documents"
    silent = said(check(with_documents(tmp_path, address), 0.1), "positions")[-1]
    assert silent == ("WARNING", f"nothing came from {address} in 0.1 s: documents come while a plan runs")


def test_the_network_is_run_and_what_updates_the_object_is_named(tmp_path):
    network = {"weights": "demo", "workers": 2}
    config = config_of(tmp_path, {"address": "ipc:///nobody"}, network=network, probe=TRAINED_PROBE)
    findings = list(check(config, 0.1))
    text = said(findings, "network")[-1][1]
    assert "ms per pattern on" in text
    assert text.endswith("; 2 workers share the frames")
    assert said(findings, "refinement") == [("OK", "updates by numpy")]


def test_the_network_that_a_run_takes_for_the_rate_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(network_choice, "sustained_hz", lambda section, n_pixels: 300.0)
    detector = {"address": "ipc:///nobody", "rate_hz": 2000}
    config = config_of(tmp_path, detector, network={"weights": "demo"}, probe=TRAINED_PROBE)
    result, text = said(check(config, 0.1), "network")[-1]
    assert result == "OK"
    assert text.startswith(
        "a run takes physics-64-fast instead of physics-64, which does 300 frames a second"
    )


def test_findings_stand_in_columns_within_the_width():
    finding = Finding("object pixel", "WARNING", "object pixel is 14 µm, expected 500 pm to 1 µm; " * 3)
    lines = table(finding, 80).splitlines()
    assert lines[0].startswith("WARNING  object pixel       object pixel is 14")
    assert all(line.startswith(" " * 28 + "") and len(line) <= 80 for line in lines[1:])
    assert max(map(len, lines)) <= 80


def test_the_command_fails_when_something_fails(call, tmp_path):
    file = tmp_path / "beamline.yaml"
    file.write_text(
        "geometry: {energy_ev: 8800, detector_distance_m: 1.92, detector_pixel_m: 75.0e-6, n_pixels: 128}\n"
        "detector: {address: 'ipc:///nobody'}\n"
        "positions: {unit: um, address: 'tcp://127.0.0.1:*'}\n"
        "live: {address: 'tcp://127.0.0.1:*'}\n"
        "viewer: {port: 0}\n"
        "refinement: {device: numpy}\n"
    )
    status, out, _ = call("check", str(file), "--timeout", "0.1")
    assert status == 1
    assert "ERROR    detector           nobody has bound ipc:///nobody" in out
    with Socket("PUSH", HERE) as detector:
        change = f"detector.address={detector.address}"
        status, out, _ = call("check", str(file), "--timeout", "0.1", "--set", change)
    assert status == 0
    assert {line.split()[0] for line in out.splitlines() if line[0] != " "} == {"OK", "WARNING"}
    assert "OK       object pixel       28.18 nm" in out


def test_the_folder_of_the_command_line_is_the_one_that_is_judged(call, tmp_path):
    config_of(tmp_path, {"address": "ipc:///nobody"})
    file, elsewhere = tmp_path / "beamline.yaml", tmp_path / "a #1: rather odd name"
    file.write_text(
        "geometry: {energy_ev: 8800, detector_distance_m: 1.92, detector_pixel_m: 75.0e-6, n_pixels: 64}\n"
        "detector: {address: 'ipc:///nobody'}\n"
        "positions: {source: file, path: positions.csv, unit: um}\n"
        "live: {address: 'tcp://127.0.0.1:*'}\n"
        "viewer: {port: 0}\n"
    )
    _, out, _ = call("check", str(file), "--timeout", "0.1", "--save", str(elsewhere))
    assert f"{elsewhere}, " in " ".join(out.split())
    elsewhere.touch()
    _, out, _ = call("check", str(file), "--timeout", "0.1", "--save", str(elsewhere))
    assert f"ERROR save {elsewhere} cannot be written to: Not a directory" in " ".join(out.split())


@pytest.mark.parametrize(
    ("message", "result", "words"),
    [
        (b'{"msg_type": "start"}', "OK", "a document came: start, descriptor"),
        (b"hello", "ERROR", "is not for source 'panda-json': message of the PandA's relay that is no JSON"),
    ],
)
def test_a_relay_of_a_panda_is_asked_who_it_is_and_what_it_sends(
    tmp_path, run_folder, message, result, words
):
    endpoint = Endpoint(address=f"ipc://{run_folder}/relay", bind=True)
    positions = {"source": "panda-json", "address": endpoint.address, "unit": "um", "y": "Y", "x": "X"}
    config = config_of(tmp_path, {"address": "ipc:///nobody"}, positions=positions)
    with Socket("XPUB", endpoint) as relay:

        def publish(message: bytes) -> None:
            assert wait_for_message([relay], 20.0)
            relay.send([message])

        who, came = said(heard(check(config, 5.0), publish, message), "positions")[-2:]
    assert who == ("OK", f"a XPUB socket answers at {endpoint.address}")
    assert (came[0], words in came[1]) == (result, True)


def test_a_file_of_positions_is_read_as_far_as_it_is_there(tmp_path):
    pattern = tmp_path / "scan_*.csv"
    positions = {"source": "growing-file", "growing_path": str(pattern), "unit": "um"}
    config = config_of(tmp_path, {"address": "ipc:///nobody"}, positions=positions)
    nothing = f"nothing came from {pattern} in 0.1 s: there is no new file {pattern}"
    assert said(check(config, 0.1), "positions")[-1] == ("WARNING", nothing)
    (tmp_path / "scan_1.csv").write_text("y,x\n1,2\n")
    found = said(check(config, 0.1), "positions")[-1]
    assert found == ("OK", "a document came: start, descriptor, event_page")
    (tmp_path / "scan_2.csv").write_text("a,b,c\n1,2,3\n")
    result, detail = said(check(config, 0.1), "positions")[-1]
    assert result == "ERROR"
    assert "found 3 columns called a, b, c: say which are y and x" in detail


def test_a_panda_that_is_not_there_is_named(tmp_path):
    panda = PandaServer(("INENC1.VAL.Value", "INENC2.VAL.Value"), (), "um")
    address = panda.address
    panda.close()
    positions = {"source": "panda", "address": address, "unit": "um", "y": "INENC1.VAL", "x": "INENC2.VAL"}
    config = config_of(tmp_path, {"address": "ipc:///nobody"}, positions=positions)
    silent = f"nothing came from {address} in 0.2 s: PandA at {address}: Connection refused"
    assert said(check(config, 0.2), "positions")[-1] == ("WARNING", silent)
