import io

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
    """What a terminal of that width has, in one line."""
    console = Console(file=io.StringIO(), width=width)
    console.print(table(FIGURES | figures))
    return "".join(console.file.getvalue().split())


def test_a_path_longer_than_the_terminal_is_whole() -> None:
    path = "/data/" + "a/rather/deep/folder/" * 6 + "0000-star.cxi"
    assert path in shown(60, result=path)


def test_brackets_in_a_path_are_shown() -> None:
    assert "/data/[red]/0000-star.cxi" in shown(100, result="/data/[red]/0000-star.cxi")
