"""The pages of the documentation as tests read them: code blocks with what is said about each.

A comment right before a block says what its test does with it:

    <!-- slow -->               runs with the slow tests only
    <!-- background -->         the same, and runs until the page ends, as in a terminal of its own
    <!-- expect 2: why -->      ends with this exit status
    <!-- pipeline -->           runs beside a pipeline that plays a scan (tests/end_to_end/test_readme.py)
    <!-- plan -->               runs with simulated motors (tests/launch/plans/test_adaptive_readme.py)
    <!-- queue: what -->       runs in a bluesky-queueserver (tests/launch/plans/test_queue_server.py)
    <!-- http: what -->        speaks to a page's server (tests/launch/page/test_steering_examples.py)
    <!-- not run: why -->       is checked, but not run

All others run in the order of their page, in one folder.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("operators", "stream", "launch")
MARKS = {"slow", "background", "expect", "pipeline", "plan", "queue", "http", "not run"}
NAMED = re.compile(r"# (\S+\.yaml)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes
    ----------
    page : str
        Path of the page from the root of the repository.
    line : int
    language, kind : str
        The words after the fence: "yaml" and, say, "recipe".
    text : str
    mark, reason : str
        Of the comment before it.
    """

    page: str
    line: int
    language: str
    kind: str
    text: str
    mark: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The name that a YAML block gives itself in its first line, "" if it has none."""
        named = NAMED.match(self.text)
        return named[1] if named else ""

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a bash block, in words; `&&` separates them like a line."""
        lines = self.text.replace("\\\n", " ").replace("&&", "\n").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def pages() -> list[Path]:
    """Every page that people write: the site, the front page and the READMEs of the folders."""
    generated = ROOT / "docs" / "reference" / "generated"
    site = [page for page in sorted((ROOT / "docs").rglob("*.md")) if generated not in page.parents]
    readmes = [ROOT / folder / "README.md" for folder in FOLDERS]
    site = [page for page in site if "_build" not in page.parts]
    front = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / ".github" / "CONTRIBUTING.md"]
    return [*front, *readmes, *site]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page, in order; directives of Sphinx are none."""
    return list(_blocks(name_of(page), page.read_text(encoding="utf-8")))


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks_of(page)]


def _blocks(page: str, text: str) -> Iterator[Block]:
    mark, reason = "", ""
    for token in MarkdownIt("commonmark").parse(text):
        line = token.map[0] + 1 if token.map else 0
        assert token.type != "code_block", f"{page}:{line}: an indented block; give it a fence and a language"
        if token.type == "html_block":
            comment = re.fullmatch(r"<!-- (.*?)(?::\s*(.*))? -->\s*", token.content, re.DOTALL)
            mark, reason = (comment[1], comment[2] or "") if comment else ("", "")
        elif token.type == "fence" and not token.info.startswith("{"):
            language, _, kind = token.info.partition(" ")
            yield Block(page, line, language, kind, token.content, mark, reason)
            mark, reason = "", ""
        elif token.nesting >= 0 and token.type != "inline":
            assert mark.split(" ")[0] not in MARKS, f"{page}:{line}: `{mark}` stands before no block"
            mark = ""
