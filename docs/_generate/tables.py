"""What all generated pages share: tables, sentences, and what a docstring says of attributes."""

import re
from collections.abc import Iterable


def sentence(text: str) -> str:
    """Return a meaning as a table shows it: in one line, without a full stop."""
    return " ".join(text.split()).rstrip(".")


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def attributes(docstring: str) -> dict[str, str]:
    """Return the meaning of each attribute that a numpydoc docstring lists."""
    _, _, listed = docstring.partition("Attributes\n----------\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in listed.splitlines():
        if line.startswith("    "):
            for name in names:
                meanings[name] = f"{meanings.get(name, '')} {line.strip()}".strip()
        elif re.fullmatch(r"[\w, ]+ : .+", line):
            names = line.partition(" : ")[0].split(", ")
        elif line.strip():
            break
    return meanings
