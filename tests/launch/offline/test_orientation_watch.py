"""Whether a run says what its frames contradict, and nothing where they do not."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from launch.beamline.simulation import SimulatedScan, Simulation, simulate_scan
from launch.config.file import load_config
from launch.offline.orient import OrientedScan
from launch.offline.orientation_process import doubts_of, main
from launch.offline.orientation_watch import FIRST_FRAMES, OrientationWatch
from operators.orientation.judge import Orientation
from operators.orientation.turn import CLASSES, Turn
from stream.record.scan import Scan, ScanHeader, State
from tests.helpers.launch.runs import make_run
from tests.helpers.stream.scans import GEOMETRY

CONFIG = """
geometry: {energy_ev: 9000, detector_distance_m: 1.0, detector_pixel_m: 75.0e-6, n_pixels: 64}
detector: {address: "tcp://127.0.0.1:31001"}
positions: {unit: um}
"""


UPRIGHT = Turn()


def oriented(
    turn: Turn = UPRIGHT, *, confidence=0.99, sign_from="recorded", centre=(32.0, 32.0)
) -> OrientedScan:
    return OrientedScan(
        orientation=Orientation(
            turn=turn,
            confidence=confidence,
            confidences=dict.fromkeys(CLASSES, 0.0),
            unexplained={},
            sign_from=sign_from,
            curvature=None,
            n_frames=200,
        ),
        centre=centre,
        assumed_centre=(32, 32),
        frame_shape=(64, 64),
        frame_numbers=(0, 199),
        geometry=GEOMETRY,
    )


def test_what_frames_contradict_is_said_with_what_corrects_it():
    (sentence,) = doubts_of(oriented(Turn(False, (1, -1))), "scans/0000 a")
    assert "with sign of x turned (confidence 0.99)" in sentence
    assert "`ptychostream orient 'scans/0000 a' --write CONFIG`" in sentence
    (sentence,) = doubts_of(oriented(centre=(40.2, 31.0)), "scan")
    assert "row 40.2, column 31.0, 8 pixels from where patterns are cut out, (32, 32)" in sentence
    assert doubts_of(oriented(Turn(False, (-1, -1)), sign_from="probe"), "scan")


def test_what_frames_do_not_tell_for_certain_is_no_doubt():
    assert doubts_of(oriented(), "scan") == []
    assert doubts_of(oriented(Turn(True, (1, 1)), confidence=0.8), "scan") == []
    # which of the two is right frames tell by absorption alone, which a sample may not have
    assert doubts_of(oriented(Turn(False, (-1, -1)), sign_from="absorption"), "scan") == []
    assert doubts_of(oriented(centre=(34.0, 30.0)), "scan") == []
    assert doubts_of(oriented(centre=(60.0, 30.0), confidence=0.3), "scan") == []


def recorded(folder: Path, simulated: SimulatedScan, n_placed: int) -> Scan:
    config = folder / "ours.yaml"
    config.write_text(f"{CONFIG}save: {folder}\n")
    run = make_run(folder, "first").model_copy(update={"config": load_config(config)})
    run.write()
    frames = simulated.frames
    header = ScanHeader(
        series_id=1,
        series_uid="a",
        frame_shape=frames.shape[1:],
        frame_dtype=frames.dtype.str,
        started_s=0.0,
        run_id=run.run_id,
    )
    scan = Scan.create(run.scans / "0000-a", header)
    numbers = np.arange(len(frames))
    scan.column("frames", writable=True).write(numbers, frames)
    scan.column("positions_m", writable=True).write(numbers, simulated.positions_m)
    scan.counters("subscriber", writable=True)["head"] = len(frames)
    scan.mark("subscriber", numbers, State.DONE)
    scan.mark("positions", numbers[:n_placed], State.DONE)
    return scan


def test_a_scan_that_is_too_short_or_has_no_positions_yet_is_waited_for(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(OrientationWatch, "_begin", lambda watch, scan: pytest.fail("too early"))
    simulated = simulate_scan(Simulation(n_rows=15, n_columns=15))
    scan = recorded(tmp_path, simulated, n_placed=FIRST_FRAMES // 2)
    watch = OrientationWatch()
    assert watch.look([scan]) == watch.look([]) == ("", [])
    watch.close()


@pytest.mark.slow
@pytest.mark.parametrize("turn", [UPRIGHT, Turn(True, (1, -1))], ids=["right", "wrong"])
def test_the_frames_of_a_scan_tell_whether_its_positions_are_as_configured(
    tmp_path, capsys, monkeypatch, turn
):
    monkeypatch.setattr(os, "nice", lambda increment: 0)
    simulated = simulate_scan(Simulation(n_rows=15, n_columns=15, step_px=6))
    turned = replace(simulated, positions_m=turn.inverse(simulated.positions_m))
    scan = recorded(tmp_path, turned, n_placed=len(turned.frames))
    assert main([str(scan.folder)]) == 0
    sentences = json.loads(capsys.readouterr().out)
    assert len(sentences) == (turn != UPRIGHT)
    assert all("y and x exchanged, then sign of x turned" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("says", "heard"), [("print('[\"a doubt\"]')", ["a doubt"]), ("raise SystemExit(3)", [])]
)
def test_the_first_scan_of_a_run_is_looked_at_once(tmp_path: Path, monkeypatch, says, heard):
    (tmp_path / "says.py").write_text(says)
    monkeypatch.setattr(
        "launch.offline.orientation_watch.COMMAND", [sys.executable, str(tmp_path / "says.py")]
    )
    scan = recorded(tmp_path, simulate_scan(Simulation(n_rows=15, n_columns=15)), n_placed=225)
    watch = OrientationWatch()
    watch.look([scan])
    watch._process.wait(30)
    assert watch.look([scan]) == (scan.name if heard else "", heard)
    assert watch.look([scan]) == ("", [])
    watch.close()


def test_a_look_that_is_not_done_when_the_run_ends_is_given_up(tmp_path: Path, monkeypatch):
    (tmp_path / "waits.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(
        "launch.offline.orientation_watch.COMMAND", [sys.executable, str(tmp_path / "waits.py")]
    )
    scan = recorded(tmp_path, simulate_scan(Simulation(n_rows=15, n_columns=15)), n_placed=225)
    watch = OrientationWatch()
    watch.look([scan])
    assert watch.look([scan]) == ("", [])
    watch.close()
    assert watch._process.returncode is not None
    assert watch.look([scan]) == ("", [])
