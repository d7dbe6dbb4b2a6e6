"""The code blocks of every page run in the order of the page, in one folder, and do what the page says."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import pytest

from launch import cli
from tests.helpers.documentation import ROOT, Block, blocks_of, name_of, pages
from tests.helpers.launch.commands import Command, free_address, running

SLOW = ("slow", "background")
LANGUAGES = ("python", "bash", "yaml")
ELSEWHERE = ("pipeline", "plan", "queue", "http", "not run")


def runnable(blocks: list[Block], *, with_slow: bool) -> list[Block]:
    marks = ELSEWHERE if with_slow else (*ELSEWHERE, *SLOW)
    return [block for block in blocks if block.mark not in marks and block.language in LANGUAGES]


def pages_with(*, slow: bool) -> list[Any]:
    """Pages with something to run; of the slow ones those that have a slow block."""
    found = []
    for page in pages():
        blocks = runnable(blocks_of(page), with_slow=slow)
        if any(block.mark in SLOW for block in blocks) if slow else any(b.language != "yaml" for b in blocks):
            found.append(pytest.param(page, id=name_of(page)))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(blocks: list[Block], folder: Path) -> None:
    """Write the files that the page shows: a reader has made them before a command names them."""
    for block in blocks:
        if block.language == "yaml" and block.file:
            (folder / block.file).write_text(block.text)


def expected_status(block: Block) -> int:
    return int(block.mark.removeprefix("expect ")) if block.mark.startswith("expect") else 0


@pytest.mark.parametrize("page", pages_with(slow=False))
def test_the_blocks_of_a_page_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = runnable(blocks_of(page), with_slow=False)
    written(blocks, folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
        elif block.language == "bash":
            for words in block.commands:
                assert _status(words, monkeypatch) == expected_status(block), (str(block), words)


def _status(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command and return its exit status; those of ptychostream in this process, which is quick."""
    if words[0] != "ptychostream":
        return subprocess.run(words, check=False).returncode
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
        sys.exit(0)
    return int(end.value.code or 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages_with(slow=True))
def test_the_blocks_of_a_page_that_take_long_run(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = runnable(blocks_of(page), with_slow=True)
    written(blocks, folder)
    addresses = Addresses()
    for name, value in addresses.environment.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as terminals:
        others: list[tuple[Block, Command]] = []
        for block in blocks:
            if block.mark == "background":
                (words,) = block.commands
                output = folder / f"terminal-{len(others)}.log"
                others.append((block, terminals.enter_context(running(output, *words[1:]))))
            elif block.language == "bash":
                for words in block.commands:
                    _run(addresses.put_in(words), block)
            elif block.language == "python":
                for _, command in others:
                    command.ends(300)
                _run([sys.executable, "-c", block.text], block)
        for block, command in others:
            assert command.ends(300) == 0, f"{block}:\n{command.output()}"
    assert not undescribed(folder)


def undescribed(folder: Path) -> set[str]:
    """Figures and datasets of the results below `folder` that the reference does not name."""
    figures, files = (
        (ROOT / "docs" / "reference" / f"{name}.md").read_text() for name in ("figures", "files")
    )
    missing = set()
    for path in (*folder.glob("*/results/*.json"), *folder.glob("*.json")):
        missing |= {name for name in json.loads(path.read_text()) if f"`{name}`" not in figures}
    for path in folder.glob("*/results/*.cxi"):
        with h5py.File(path) as file:
            names = [name for name, item in visited(file) if isinstance(item, h5py.Dataset)]
        last = {name.rpartition("/")[2] for name in names}
        missing |= {name for name in last if not re.search(rf"[`/]{name}`", files + figures)}
    return missing


def visited(file: h5py.File) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    file.visititems(lambda name, item: found.append((name, item)))
    return found


def _run(words: list[str], block: Block) -> None:
    if words[0] == "ptychostream":
        words = [sys.executable, "-m", "launch", *words[1:]]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == expected_status(block), (
        f"{block}: {shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    )


class Addresses:
    """Free addresses in place of those that the pages show, which other tests may use at this moment."""

    def __init__(self) -> None:
        self._detector, self._positions = free_address(), free_address()
        self.environment = {
            "PTYCHOSTREAM__DETECTOR__ADDRESS": self._detector,
            "PTYCHOSTREAM__POSITIONS__ADDRESS": self._positions,
            "PTYCHOSTREAM__LIVE__ADDRESS": "tcp://127.0.0.1:*",
            "PTYCHOSTREAM__VIEWER__PORT": "0",
        }

    def put_in(self, words: list[str]) -> list[str]:
        """Return the same command with these addresses where it has none of its own."""
        if words[:2] != ["ptychostream", "replay"]:
            return words
        return [*words, "--address", self._detector, "--positions", self._positions]
