import io
import threading

import numpy as np
import pytest
from rich.console import Console

from launch.commands.watch import watch
from stream.wire.messages import FinishedScan, MotorAxes, RunState
from tests.helpers.stream.fake_door import FakeDoor


def watched(console, *, is_final_at=3, state=None):
    with FakeDoor() as door:
        door.begin("0001-star")
        door.state = state
        done = threading.Event()

        def publish():
            for number in range(1, is_final_at + 1):
                door.publish(
                    np.ones((5, 7), np.complex64),
                    frames_seen=10 * number,
                    counts=dict.fromkeys(("expected", "recorded", "mosaicked"), 10 * number) | {"lost": 0},
                    error=0.25,
                    epoch=1.5,
                    time_to_image_ms=(20.0, 45.0),
                    motors=MotorAxes(unit="um", origin=(1.0, 5.0), pitch=(0.5, -0.25)),
                    is_final=number == is_final_at,
                )
                done.wait(0.02)

        publisher = threading.Thread(target=publish)
        publisher.start()
        status = watch(door.address, console=console)
        publisher.join()
    return status


def test_lines_end_with_the_final_state():
    out = io.StringIO()
    assert watched(Console(file=out)) == 0
    *_, last = out.getvalue().splitlines()
    assert last == (
        "0001-star  30 expected: 30 in the image  version 3  5 x 7 px of 10 nm  "
        "y 1 to 3, x 3.5 to 5 um  "
        "epoch 1.5, amplitude error 0.2500  time to image, last 512 frames: median 20 ms, 99 % 45 ms  "
        "scan complete: all 30 frames are in the image"
    )


def test_a_terminal_shows_a_table_by_stage():
    out = io.StringIO()
    assert watched(Console(file=out, force_terminal=True, width=120, color_system=None)) == 0
    assert "in the image" in out.getvalue()
    assert "scan complete: all 30 frames are in the image" in out.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_scan_that_was_finished_meanwhile_is_told_once_with_the_file_of_its_image(is_terminal):
    scan = FinishedScan(name="0000-a", text="scan complete", result="/data/results/0000-a.cxi")
    state = RunState(scan="0001-star", level="live", text="live", finished=(scan,))
    out = io.StringIO()
    watched(Console(file=out, force_terminal=is_terminal, width=120, color_system=None), state=state)
    told = "0000-a is finished: scan complete; /data/results/0000-a.cxi"
    assert out.getvalue().count(told) == 1 or is_terminal
    assert told in out.getvalue()


def test_nobody_answering_is_an_error():
    door = FakeDoor()
    door.close()
    with pytest.raises(TimeoutError, match="nobody has answered"):
        watch(door.address, timeout_s=0.05, console=Console(file=io.StringIO()))
