"""What benchmarks have in common: their targets, the machine, the table and the file of their figures."""

import importlib.metadata
import operator
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from launch.results.summary import write_summary

Figures = dict[str, Any]
LIBRARIES = (
    "numpy",
    "scipy",
    "torch",
    "numba",
    "pyfftw",
    "openvino",
    "pyzmq",
    "cupy-cuda12x",
    "cupy-cuda13x",
)
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "in": lambda value, ends: ends[0] <= value <= ends[1],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How something is measured, and what is shown of it.

    Attributes
    ----------
    measure : callable
        Takes a folder for what it writes and yields figures by name, part after part.
    rehearse : callable, optional
        As `measure`, small and on a CPU: the same code, so that a device that is at hand for minutes is not
        spent on what could have been seen before. Its figures say nothing about speed.
    targets : dict of (str, limit)
        Of figures: "<=" or ">=" and a number, or "in" and a pair.
    published : dict of float
        What others have published for a figure, on their data.
    columns : dict of tuple of str
        Names of figures that are tables of their own, by row and column or as a list of rows that begin with
        their name, and which columns are shown.
    """

    measure: Callable[[Path], Iterator[Figures]]
    rehearse: Callable[[Path], Iterator[Figures]] | None = None
    targets: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def run(self, folder: Path, json_path: Path | None = None, *, rehearses: bool = False) -> Figures:
        """Return all figures by name; `json_path` has them after each part, so that a failure loses one."""
        figures: Figures = {}
        measured_on = machine() | ({"rehearsal": "small sizes on the processor"} if rehearses else {})
        measure = self.rehearse if rehearses else self.measure
        assert measure is not None
        for part in measure(folder):
            figures |= part
            figures["measured_on"] = measured_on | part.get("measured_on", {})
            if json_path is not None:
                write_summary(json_path, figures)
        return figures

    def show(self, name: str, figures: Figures, console: Console) -> None:
        """Print the figures beside their targets, and what they were measured on."""
        is_rehearsal = "rehearsal" in figures["measured_on"]
        shown = {name: figures[name] for name in figures if name not in ("measured_on", *self.columns)}
        table = Table(title=name)
        headings = ("figure", "published", "measured", "target", "")
        for heading in headings if self.published else headings[:1] + headings[2:]:
            table.add_column(heading, overflow="fold")
        for figure, value in shown.items():
            if not isinstance(value, (str, float, int, np.floating)):
                continue
            published = [f"{self.published[figure]:g}" if figure in self.published else ""]
            row = [
                figure,
                *(published if self.published else []),
                _number(value),
                *(("", "") if is_rehearsal else self._wanted(figure, value)),
            ]
            table.add_row(*row)
        console.print(table, *(self._rows_and_columns(title, figures) for title in self.columns))
        console.print("measured on " + ", ".join(map(_said, figures["measured_on"].items())))

    def _wanted(self, figure: str, value: Any) -> tuple[str, str]:
        if figure not in self.targets:
            return "", ""
        sign, limit = target = self.targets[figure]
        return f"{sign} {limit}", "met" if is_met(value, target) else "missed"

    def _rows_and_columns(self, title: str, figures: Figures) -> Table:
        table = Table(title=title)
        for heading in ("", *self.columns[title]):
            table.add_column(heading, overflow="fold")
        found = figures[title]
        if isinstance(found, list):  # rows whose first figure is their name
            found = {str(next(iter(row.values()))): row for row in found}
        for row, values in found.items():
            table.add_row(row, *(_number(values.get(column, "")) for column in self.columns[title]))
        return table


def is_met(value: float, target: tuple[str, Any]) -> bool:
    """Return whether a figure reaches its target."""
    sign, limit = target
    return bool(SIGNS[sign](value, limit))


def machine() -> dict[str, Any]:
    """Return processor, cores that this process may use, and versions of Python and of what does the work."""
    versions = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"cpu": _processor(), "cores": len(os.sched_getaffinity(0)), **versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _said(item: tuple[str, Any]) -> str:
    name, value = item
    if name == "cpu":
        return str(value)
    return f"{value} cores" if name == "cores" else f"{name.replace('_', ' ')} {value}"
