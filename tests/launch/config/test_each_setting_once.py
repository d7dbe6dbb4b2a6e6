"""No default stands twice: a section of a configuration file has it, everything else takes it from there.

A field of a section and a field of the same name in a dataclass or an option of a command are taken for the
same setting unless the list below says what the other one is. Sections are not compared with each other:
every key of a file has a default of its own.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import launch
import operators
import stream

SECTION = "Section"
OTHER_THINGS = {
    ("Endpoint", "bind"): "of any socket; the sections that own their address say so",
    ("Endpoint", "insecure"): "of any socket; the page has one of its own",
    ("replay", "bind"): "the side of the detector",
    ("replay", "format"): "the side of the detector",
    ("replay", "pattern"): "the side of the detector",
    ("ReplayConfig", "channel"): "the side of the detector",
    ("Tellers", "timeout_s"): "for what comes over an address, once",
    ("stage", "device"): "of the machine that helps",
    ("stage", "threads"): "of the machine that helps",
    ("train", "device"): "where PyTorch trains",
    ("Turn", "signs"): "of what is tried",
    ("orient", "threads"): "of trials on few frames",
    ("demo", "seed"): "of a simulated sample",
    ("Simulation", "seed"): "of a simulated sample",
    ("SparseSample", "seed"): "of a simulated sample",
    ("SparseSample", "share"): "of the field that is covered",
    ("ErrorModel", "overlap"): "of patches, in the error of their mean",
    ("ProjectionConfig", "algorithm"): "one of the reference algorithms",
    ("ProjectionConfig", "probe_start"): "counts iterations over all frames",
    ("StageSpec", "threads"): "of the numerical libraries in one process",
    ("Preprocess", "background"): "counts of a frame without beam",
    ("BeamEffects", "n_modes"): "that a partially coherent beam is simulated with",
} | {
    # one value of one simulated beam or detector, where a recipe has a range to draw from
    (of, name): "one value, not a range"
    for of, names in {
        "BeamEffects": ("blur_px", "travel_px"),
        "DetectorEffects": (
            *("gain_spread", "dead_share", "hot_share", "beam_stop_px", "gap_px", "background"),
        ),
    }.items()
    for name in names
}


class Default(NamedTuple):
    """A default that is written out: a name or a call would take it from somewhere else."""

    of: str
    name: str
    value: object
    is_section: bool


def defaults_in(sources: list[str]) -> list[Default]:
    """Returns what fields of models and dataclasses and options of commands have for a default.

    None and "" are no defaults: they say that nothing was chosen. Neither is a switch that is off.
    """
    trees = [ast.parse(source) for source in sources]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {node.name: [ast.unparse(base) for base in node.bases] for node in classes}
    found = []
    for node in classes:
        is_section = _descends(node.name, SECTION, bases)
        if is_section or _descends(node.name, "BaseModel", bases) or _is_decorated(node, "dataclass"):
            found += [Default(node.name, name, value, is_section) for name, value in _fields(node)]
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and _is_decorated(node, "command"):
                found += [Default(node.name, *option, False) for option in _options(node)]
    return [default for default in found if default.value not in (None, "")]


def _descends(name: str, ancestor: str, bases: dict[str, list[str]]) -> bool:
    return any(base == ancestor or _descends(base, ancestor, bases) for base in bases.get(name, ()))


def _is_decorated(node: ast.ClassDef | ast.FunctionDef, with_what: str) -> bool:
    return any(with_what in ast.unparse(decorator) for decorator in node.decorator_list)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, object]]:
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
            yield from _literal(line.target.id, line.value)


def _options(node: ast.FunctionDef) -> Iterator[tuple[str, object]]:
    arguments = node.args.args[len(node.args.args) - len(node.args.defaults) :]
    for argument, default in zip(arguments, node.args.defaults, strict=True):
        yield from ((name, value) for name, value in _literal(argument.arg, default) if value is not False)


def _literal(name: str, value: ast.expr) -> Iterator[tuple[str, object]]:
    try:
        yield name, ast.literal_eval(value)
    except ValueError:
        return


def twice(defaults: list[Default]) -> list[str]:
    """Returns which defaults stand beside that of a section."""
    settings: dict[str, list[str]] = {}
    for default in defaults:
        if default.is_section:
            settings.setdefault(default.name, []).append(default.of)
    return [
        f"{default.of}.{default.name} = {default.value!r}: is it that of {', '.join(settings[default.name])}?"
        for default in defaults
        if not default.is_section and default.name in settings
    ]


@pytest.fixture(scope="module")
def ours() -> list[Default]:
    packages = [Path(package.__file__).parent for package in (operators, stream, launch)]
    return defaults_in(
        [file.read_text(encoding="utf-8") for package in packages for file in package.rglob("*.py")]
    )


def test_no_default_of_a_setting_stands_twice(ours):
    defaults = [default for default in ours if default[:2] not in OTHER_THINGS]
    assert sum(default.is_section for default in defaults) > 70
    assert twice(defaults) == []


def test_what_is_listed_as_another_thing_is_there(ours):
    others = {default[:2] for default in ours if not default.is_section}
    assert OTHER_THINGS.keys() <= others


SEEDED = """
class StageConfig(Section):
    late_s: float = 5.0
    device: str = "auto"
    queue: int = 1000

class HurriedConfig(StageConfig):
    late_s: float = 1.0

@dataclass(frozen=True)
class Stage:
    late_s: float = 5.0
    queue: int = StageConfig().queue
    device: str | None = None

@app.command()
def run(device: str = "cpu", queue: bool = False, late_s: float | None = None) -> None: ...
"""


def test_a_default_beside_that_of_a_section_is_found_and_one_taken_from_it_is_not():
    assert twice(defaults_in([SEEDED])) == [
        "Stage.late_s = 5.0: is it that of StageConfig, HurriedConfig?",
        "run.device = 'cpu': is it that of StageConfig?",
    ]
