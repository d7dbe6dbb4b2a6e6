"""The tests of `test_signals`, which runs them."""

import io
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from launch import cli
from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands import reconstruct as command
from launch.commands.simulate import write_scan
from launch.offline.task import ReconstructOptions
from launch.results.cxi import read_result
from launch.signals import Interrupted, ends_on_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _heeded():
    """Whatever starts the tests, such as `nohup`, may ignore signals."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_that_asks_for_the_end_cleans_up_as_ctrl_c_does(number):
    with pytest.raises(KeyboardInterrupt) as caught, ends_on_signals():
        signal.raise_signal(number)
    assert caught.value.status == 128 + number


@pytest.mark.parametrize("number", SIGNALS)
def test_the_exit_status_says_which_signal_it_was(number, monkeypatch, tmp_path):
    monkeypatch.setattr("launch.beamline.simulation.simulate_scan", lambda it: signal.raise_signal(number))
    monkeypatch.setattr(sys, "argv", ["ptychostream", "simulate", str(tmp_path / "a.cxi")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_was_told_to_outlive_its_terminal_does():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with ends_on_signals() as asked:
            signal.raise_signal(signal.SIGHUP)
        assert asked.interruption is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_deferred_signal_is_noted_and_said_and_the_next_one_ends_at_once(capfd):
    with ends_on_signals("finishing") as asked:
        asked.is_deferred = True
        signal.raise_signal(signal.SIGTERM)
        assert asked.interruption is not None and asked.interruption.status == 143
        assert capfd.readouterr().err == "finishing\n"
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


UNHEARD = """
import sys
from launch.signals import heard_or_not
sys.stdin.readline()
with heard_or_not():
    for stream in (sys.stdout, sys.stderr):
        print("not even the first line is heard", file=stream, flush=True)
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_command_that_nobody_hears_any_longer_does_its_work(tmp_path, is_terminal):
    reader, writer = pty.openpty() if is_terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", UNHEARD, str(tmp_path / "done")],
        stdin=subprocess.PIPE, stdout=writer, stderr=writer,
    )  # fmt: skip
    for descriptor in (writer, reader):
        os.close(descriptor)
    process.communicate(b"go on\n")
    assert process.returncode == 0
    assert (tmp_path / "done").read_text() == "done"


class Interrupting:
    """A reconstruction in which somebody asks for the end."""

    def __init__(self, *at_epochs):
        self._at, self._reconstruct = list(at_epochs), command.reconstruct

    def __call__(self, scan, options, *, progress, **others):
        def tell(epoch, error):
            while self._at and self._at[0] <= epoch:
                self._at.pop(0)
                signal.raise_signal(signal.SIGTERM)
            return progress(epoch, error)

        if self._at[0] == 0:
            signal.raise_signal(signal.SIGTERM)
        return self._reconstruct(scan, options, progress=tell, **others)


@pytest.fixture
def interrupted(tmp_path, undrawn, monkeypatch):
    """Reconstructs 9 frames, 30 epochs, and is asked to end; returns what was printed."""
    write_scan(tmp_path / "in.cxi", simulate_scan(Simulation(n_rows=3, n_columns=3)), "test")

    def run(*at_epochs, **options):
        monkeypatch.setattr(command, "reconstruct", Interrupting(*at_epochs))
        printed = io.StringIO()
        with pytest.raises(Interrupted) as caught:
            command.reconstruct_file(
                str(tmp_path / "in.cxi"),
                lambda scan: ReconstructOptions(epochs=30, device="numpy"),
                output=tmp_path / "out.cxi",
                json_file=tmp_path / "out.json",
                console=Console(file=printed, width=200),
                **options,
            )
        assert caught.value.status == 143
        return printed.getvalue()

    return run


def test_a_reconstruction_that_is_interrupted_keeps_the_epochs_that_are_done(interrupted, tmp_path):
    printed = interrupted(2)
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["interrupted"] == "after 2 of 30 epochs"
    assert figures["epochs"] == 2
    assert len(read_result(tmp_path / "out.cxi").error_history) == 3
    assert "after 2 of 30 epochs" in printed and str(tmp_path / "out.cxi") in printed


@pytest.mark.parametrize("at_epochs", [(0,), (2, 2)])
def test_without_a_result_or_asked_twice_it_ends_at_once_and_writes_nothing(interrupted, tmp_path, at_epochs):
    assert "nothing is written" in interrupted(*at_epochs)
    assert [path.name for path in tmp_path.iterdir()] == ["in.cxi"]


def test_a_reconstruction_that_is_interrupted_while_it_correlates_halves_is_whole(
    interrupted, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        command, "half_data_correlation", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    interrupted(99, correlates_halves=True)
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["epochs"] == 30
    assert "interrupted" not in figures and "frc_half_cycles_per_px" not in figures
