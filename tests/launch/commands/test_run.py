import io
import json
import logging

import numpy as np
import pytest
from rich.console import Console

from launch.commands.run import SilenceWatch, run
from launch.config.file import load_config
from launch.run.progress import ProgressLine, Shown, describe
from stream.record.scan import Scan, ScanHeader, State
from stream.wire.messages import RunState
from tests.helpers.stream.clock import Clock


@pytest.fixture
def scan(tmp_path) -> Scan:
    header = ScanHeader(series_id=1, series_uid="s", frame_shape=(4, 4), frame_dtype="<u2", started_s=0.0)
    scan = Scan.create(tmp_path / "0000-siemens", header)
    scan.counters("subscriber", writable=True)["head"] = 10
    scan.mark("subscriber", np.arange(8), State.DONE)
    scan.mark("subscriber", np.array([8]), State.LOST)
    scan.mark("positions", np.array([3]), State.NO_POSITION)
    return scan


def make_line(clock: Clock, *, is_terminal: bool = False) -> tuple[ProgressLine, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=120)
    return ProgressLine(console, clock), output


def test_silence_is_mentioned_every_ten_seconds():
    clock, warnings = Clock(), []
    watch = SilenceWatch("tcp://detector:1", 0.0, warnings.append, clock)
    for _ in range(25):
        clock.now += 1.0
        watch.look([])
    assert warnings == [
        f"nothing from tcp://detector:1 for {seconds} s: is the detector armed? "
        "`ptychostream check` tries every address"
        for seconds in (10, 20)
    ]


def test_silence_ends_the_run_when_asked_to():
    clock = Clock()
    watch = SilenceWatch("tcp://detector:1", 5.0, lambda text: None, clock)
    clock.now += 5.0
    with pytest.raises(TimeoutError, match="nothing from tcp://detector:1 for 5 s"):
        watch.look([])


def test_a_detector_that_has_sent_is_not_silent(scan):
    clock = Clock()
    watch = SilenceWatch("tcp://detector:1", 5.0, pytest.fail, clock)
    clock.now += 50.0
    watch.look([scan])


def test_the_line_accounts_for_the_frames(scan):
    told = "0000-siemens  10 expected: 0 in the image, 7 pending, 1 without position, 1 lost, 1 to come"
    assert describe(Shown.of(scan)) == told


def test_lines_come_once_a_second_and_when_they_say_something_new_where_there_is_no_terminal(scan):
    clock = Clock()
    line, output = make_line(clock)
    figures = describe(Shown.of(scan))
    with line:
        line.show([], says("waiting for the first frame"))
        for text in ("receiving", "complete"):
            for _ in range(10):
                clock.now += 0.25
                line.show([scan], says(text))
    said = ["waiting for the first frame", f"{figures}  receiving", f"{figures}  complete"]
    assert output.getvalue().splitlines() == said


def test_seconds_that_pass_alone_are_worth_a_line_every_ten(scan):
    clock = Clock()
    line, output = make_line(clock)
    for second in range(25):
        clock.now += 1.0
        line.show([scan], says(f"detector: silent for {second} s"))
    seconds = [text.rsplit(" for ", 1)[1] for text in output.getvalue().splitlines()]
    assert seconds == ["0 s", "10 s", "20 s"]


def says(text: str) -> RunState:
    return RunState(level="live", text=text)


def test_notices_name_their_stage():
    line, output = make_line(Clock())
    line.notice("subscriber", logging.WARNING, "3 frames rejected [shape]")
    assert output.getvalue() == "subscriber: 3 frames rejected [shape]\n"


@pytest.mark.slow
def test_a_silent_detector_ends_in_a_message_and_not_in_a_hang(run_folder, capfd):
    np.save(run_folder / "positions.npy", [[0, 0], [0, 4e-7], [4e-7, 0], [4e-7, 4e-7]])
    (run_folder / "config.yaml").write_text(
        "geometry: {energy_ev: 8800, detector_distance_m: 1.92, detector_pixel_m: 75.0e-6, n_pixels: 128}\n"
        f"detector: {{address: 'ipc://{run_folder}/detector'}}\n"
        "positions: {source: file, path: positions.npy, unit: m}\n"
        "live: {address: 'tcp://127.0.0.1:*'}\n"
        "viewer: {enabled: false}\n"
    )
    config = load_config(run_folder / "config.yaml")
    figures = run_folder / "figures.json"
    assert run(config, n_series=1, timeout_s=0.5, json_file=figures, console=Console(width=200)) == 1
    out, err = capfd.readouterr()
    assert "live image  ptychostream watch tcp://127.0.0.1:" in out
    assert err.startswith(f"nothing from ipc://{run_folder}/detector for ")
    (log,) = (config.save / "logs").glob("*T*.log")
    *_, reason, end = log.read_text().splitlines()
    assert f"ERROR   - run: nothing from ipc://{run_folder}/detector for " in reason
    assert end.endswith("INFO    - run: ends")
    assert json.loads(figures.read_text())["is_complete"] is False
