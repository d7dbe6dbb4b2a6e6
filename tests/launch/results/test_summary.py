import io
import time

from rich.console import Console

from launch.results.summary import table

FIGURES = {
    "scan": "0000-star",
    "frames_expected": 4,
    "frames_recorded": 4,
    "frames_lost": 0,
    "frames_pending": 0,
    "is_complete": True,
}


def shown(width: int, **figures: object) -> str:
    """What a terminal of that width has."""
    console = Console(file=io.StringIO(), width=width)
    table(FIGURES | figures).show(console)
    return console.file.getvalue()


def test_from_what_a_scan_started_is_told_with_what_came_of_it() -> None:
    assert "started from  probe of 0000-a\n" in shown(80, reused_from="0000-a", reused_object_frames=0)
    told = shown(80, reused_from="0000-a", reused_object_frames=480)
    assert "started from  probe of 0000-a, and its object for 480 frames\n" in told


def test_a_path_longer_than_the_terminal_is_one_piece_to_copy() -> None:
    path = "/data/" + "a/rather deep/folder/" * 6 + "0000-star.cxi"
    assert f"{path}\n" in shown(60, result=path)


def test_a_command_longer_than_the_terminal_is_one_piece_to_copy() -> None:
    command = "`ptychostream reconstruct '/data/a rather deep folder/of scans/0000-star' --frc`"
    assert f"{command}\n" in shown(60, resolution_unknown=f"not measured: x; {command} measures it")


def test_text_longer_than_the_terminal_is_wrapped_below_itself() -> None:
    lines = shown(60, incomplete=", ".join(["lost 92 frames (533-624)"] * 3), is_complete=False).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[-1].startswith(" " * len("result is  ") + "frames")


def test_brackets_in_a_path_are_shown() -> None:
    assert "/data/[red]/0000-star.cxi" in shown(100, result="/data/[red]/0000-star.cxi")


def test_what_went_wrong_is_told_with_its_time_the_last_of_much() -> None:
    events = [
        {"time_s": float(n), "level": level, "source": "inference", "text": f"{level} {n}"}
        for n in range(6)
        for level in ("info", "warning")
    ]
    shown_lines = shown(80, events=events).splitlines()
    lines = [line.removeprefix("events").strip() for line in shown_lines if "inference: " in line]
    assert lines == [
        f"{time.strftime('%H:%M:%S', time.localtime(n))} inference: warning {n}" for n in range(6)
    ]
    assert "4 earlier ones\n" in shown(80, events=2 * events)
    assert "events" not in shown(80, events=[event for event in events if event["level"] == "info"])


def test_a_probe_that_moved_during_exposures_is_told_with_what_to_do_about_it() -> None:
    told = "the probe moved by 2.3 pixels"
    assert f"{told}: refine with 3 modes (probe.n_modes" in shown(120, travel_px=2.31, probe_modes=1)
    assert told in shown(120, travel_px=2.31, probe_modes=3)
    assert "refine with" not in shown(120, travel_px=2.31, probe_modes=3)
    assert "refine with" not in shown(120, travel_px=0.4, probe_modes=1)
