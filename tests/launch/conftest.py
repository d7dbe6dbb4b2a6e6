import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from matplotlib.figure import Figure

from launch import cli

PICTURE = b"\x89PNG of a test"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are written and not drawn, which takes longer than a short reconstruction does."""

    def savefig(figure: Figure, file: str | Path | IO[bytes], **options: Any) -> None:
        file.write(PICTURE) if hasattr(file, "write") else Path(file).write_bytes(PICTURE)

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process; returns exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ptychostream", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run
