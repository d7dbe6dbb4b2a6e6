"""What commands show people at a terminal: notes, and a table."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

GAP = 2
NARROWEST = 30  # columns of text, however narrow the terminal is


class FactsTable:
    """Names and what they stand for, in two columns.

    Text is wrapped to the width of the terminal between words only; a path, and a command between backticks,
    not at all, so that they can be copied.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, str | Path]] = []

    def add_row(self, name: str, fact: str | Path) -> None:
        """Adds what `name` stands for, a path or text with the markup of rich."""
        self._rows.append((name, fact))

    def show(self, console: Console) -> None:
        """Prints the rows."""
        indent = GAP + max(len(name) for name, _ in self._rows)
        for name, fact in self._rows:
            head = name
            for line in _lines(fact, max(console.width - indent, NARROWEST)):
                console.print(Text(head.ljust(indent)) + line, soft_wrap=True)
                head = ""


def show_notes(notes: Iterable[str], console: Console) -> None:
    """Prints what a scan says of itself, each on a line that can be copied."""
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _lines(fact: str | Path, width: int) -> list[Text]:
    if isinstance(fact, Path):
        return [Text(str(fact))]
    first, *words = _words(Text.from_markup(fact))
    lines = [first]
    for word in words:
        if lines[-1].cell_len + 1 + word.cell_len <= width:
            lines[-1] = Text(" ").join([lines[-1], word])
        else:
            lines.append(word)
    return lines


def _words(text: Text) -> list[Text]:
    """Return what stays on one line: words, and all that is between two backticks."""
    words: list[Text] = []
    for word in text.split(" "):
        if words and words[-1].plain.count("`") % 2:
            words[-1] = Text(" ").join([words[-1], word])
        else:
            words.append(word)
    return words
