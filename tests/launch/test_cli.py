import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from launch import cli
from launch.cli.app import EngineDevice
from operators.engine.backends import BACKENDS
from stream.wire.sockets import Endpoint, Socket

CONFIG = """
geometry: {energy_ev: 8800, detector_distance_m: 1.92, detector_pixel_m: 75.0e-6, n_pixels: 128}
detector: {address: "%s"}
positions: {unit: um, address: "tcp://127.0.0.1:*"}
live: {address: "tcp://127.0.0.1:*"}
viewer: {port: 0}
"""


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command line in this process; returns exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ptychostream", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


@pytest.fixture
def config(tmp_path: Path):
    def write(detector: str) -> str:
        path = tmp_path / "beamline.yaml"
        path.write_text(CONFIG % detector)
        return str(path)

    return write


def test_help_loads_no_array_library():
    code = (
        "import sys; sys.argv = ['ptychostream', '--help']\n"
        "from launch.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'numpy', 'torch', 'zmq', 'pydantic'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_reconstruct_offers_every_backend_though_it_starts_without_the_engine():
    choices, *_ = get_args(get_args(EngineDevice)[0])
    assert get_args(choices) == BACKENDS


def test_a_mistake_is_one_line_and_exit_status_2(call, tmp_path):
    status, out, err = call("check", str(tmp_path / "no.yaml"))
    assert (status, out) == (2, "")
    assert err.startswith("ptychostream: ") and err.count("\n") == 1


def test_debugging_shows_where_a_mistake_was_noticed(monkeypatch, tmp_path):
    monkeypatch.setenv(cli.DEBUG, "1")
    monkeypatch.setattr(sys, "argv", ["ptychostream", "check", str(tmp_path / "no.yaml")])
    with pytest.raises(ValueError, match="no such file"):
        cli.main()


def test_check_is_content_when_everything_answers(call, config):
    with Socket("PUSH", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as detector:
        status, out, _ = call("check", config(detector.address))
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["OK"] * 7
    assert f"OK      detector {detector.address}: answers" in out


def test_check_names_what_does_not_answer(call, config):
    with Socket("PUSH", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as closed_again:
        address = closed_again.address
    status, out, _ = call("check", config(address))
    assert status == 1
    assert out.startswith(f"ERROR   detector {address}: 127.0.0.1 refuses port")


def test_check_tells_silence_from_refusal(call, config, monkeypatch):
    def never(*_, **__):
        raise TimeoutError

    monkeypatch.setattr("launch.commands.check.socket.create_connection", never)
    status, out, _ = call("check", config("tcp://127.0.0.1:9"), "--timeout", "0.5")
    assert status == 1
    assert out.startswith("TIMEOUT detector tcp://127.0.0.1:9: no answer in 0.5 s")


def test_check_notices_an_address_that_is_taken(call, config):
    with Socket("ROUTER", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as other:
        status, out, _ = call("check", config(other.address), "--set", f"live.address={other.address}")
    assert status == 1
    assert f"ERROR   live {other.address}: cannot bind {other.address}: Address already in use" in out


def test_check_notices_a_probe_of_another_size(call, config, tmp_path):
    import numpy as np

    np.save(tmp_path / "probe.npy", np.ones((2, 64, 64), np.complex64))
    _, out, _ = call("check", config("ipc:///nobody"), "--set", "probe={source: file, path: probe.npy}")
    assert "ERROR   probe file: the probe has shape (2, 64, 64), patterns have 128 x 128 pixels" in out
    assert "ERROR   detector ipc:///nobody: nobody has bound ipc:///nobody" in out


def test_check_warns_of_a_probe_that_the_network_was_not_trained_for(call, config):
    probe = "{source: zone_plate, pupil_radius_px: 12, disc_radius_px: 14, photons: 100}"
    changes = ("geometry.n_pixels=64", "network.weights=demo", f"probe={probe}")
    with Socket("PUSH", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as detector:
        options = [part for change in changes for part in ("--set", change)]
        status, out, _ = call("check", config(detector.address), *options)
    assert "WARNING network physics-64.safetensors: the network was trained for 8e+03 to 2e+06 photons" in out
    assert status == 0, "a run may begin"


def test_keys_are_written_and_the_secret_one_is_private(call, tmp_path):
    status, out, _ = call("keys", str(tmp_path), "viewer")
    assert status == 0
    secret, public = tmp_path / "viewer.key_secret", tmp_path / "viewer.key"
    assert str(secret) in out and str(public) in out
    assert public.is_file()
    assert secret.stat().st_mode & 0o077 == 0
