"""The reference pages that come out of the code: settings, recipes, commands and messages.

Nothing here is written down twice: a key that the models do not have cannot be on a page, and one that they
have cannot be missing.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import typer
from pydantic import TypeAdapter

Schema = Mapping[str, Any]

UNITS = {"_m": "m", "_px": "pixel", "_ev": "eV", "_s": "s", "_rad": "rad", "_ms": "ms"}
PHOTONS = {"photons", "photons_per_frame", "max_dose"}
BOUNDS = {
    "exclusiveMinimum": "> {:g}",
    "minimum": "≥ {:g}",
    "exclusiveMaximum": "< {:g}",
    "maximum": "≤ {:g}",
}
HUGE = 2**31  # bounds that only keep numbers inside their type are not worth a reader's time
TYPES = {"number": "number", "integer": "whole number", "boolean": "true or false", "string": "text"}
ROOT = Path(__file__).resolve().parents[1]


def write_pages(folder: Path) -> None:
    """Writes all generated pages into `folder`; what has not changed keeps its time, for Sphinx."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Returns the text of every generated page by its name."""
    from launch.beamline.simulation import Simulation
    from launch.cli import app
    from launch.config.config import Config
    from launch.training.recipe import Recipe
    from stream.wire import messages

    return {
        "configuration": CONFIGURATION + settings(TypeAdapter(Config).json_schema()),
        "recipes": RECIPES + settings(TypeAdapter(Recipe).json_schema()),
        "simulations": SIMULATIONS + settings(TypeAdapter(Simulation).json_schema()),
        "commands": COMMANDS + commands(app),
        "messages": MESSAGES + message_tables(messages),
    }


CONFIGURATION = """# Every setting of a run

What can stand in the YAML file of `ptychostream run` and `ptychostream check`, section by section. A key
without a default is required. Any of them can also be given as `--set SECTION.KEY=VALUE` or in the
environment as `PTYCHOSTREAM__SECTION__KEY`. Relative paths start at the folder of the file.

This page is generated from the models that check the file.

"""

RECIPES = """# Every setting of a training

What can stand in the YAML file of `ptychostream train`. [](../../how-to/train.md) says how to choose them.
`[number, number]` is a range, least and most, from which each sample draws; one number stands for both.

This page is generated from the models that check the file.

"""

SIMULATIONS = """# Every setting of a simulation

What can stand in the YAML file of `ptychostream simulate --config`. Everything may be left out: the default
is a coherent, steady beam, a stage that is where it says, and an ideal detector. Pixels are object pixels,
those of the detector's effects detector pixels.

This page is generated from the models that check the file.

"""

COMMANDS = """# Every command

What can be typed after `ptychostream`. Exit status 0 means that all went well, 1 that the command did its
work and the answer is no (frames are missing, a check failed), 2 that it could not begin: one line on
standard error says why, and `PTYCHOSTREAM_DEBUG=1` where it was noticed.

This page is generated from the command line itself.

"""

MESSAGES = """# Every message

What travels between the processes, with the bounds that each field is checked against when it arrives; what
does not fit, or is not named here, is refused. [](../wire.md) says who sends what to whom, and how a message
is put into bytes.

This page is generated from `stream/wire/messages.py`.

"""


def settings(schema: Schema) -> str:
    """Returns the tables of a model: its own keys, then a section for each that is a model itself."""
    definitions = schema.get("$defs", {})
    own = {
        name: field for name, field in schema["properties"].items() if _section(field, definitions) is None
    }
    parts = []
    if own:
        parts += ["## Beside the sections", _table(own, schema, definitions)]
    for name, field in schema["properties"].items():
        section = _section(field, definitions)
        if section is not None:
            parts += [
                f"## {name}",
                _summary(field, section),
                _table(section["properties"], section, definitions),
            ]
    return "\n\n".join(parts) + "\n"


def _section(field: Schema, definitions: Schema) -> Schema | None:
    """Return the model that a field holds, None if it is a plain value."""
    choices = field.get("anyOf", field.get("allOf", [field]))
    for choice in choices:
        found = definitions.get(choice.get("$ref", "").rpartition("/")[2])
        if found is not None and "properties" in found:
            return found
    return None


def _summary(field: Schema, section: Schema) -> str:
    text = section.get("description") or field.get("description", "")
    summary = text.partition("\n\n")[0].strip()
    return _sentence(summary) + "."


def _table(fields: Schema, model: Schema, definitions: Schema) -> str:
    meanings, required = _attributes(model.get("description", "")), model.get("required", [])
    rows = []
    for name, field in fields.items():
        meaning = field.get("description") or meanings.get(name, "")
        default = "required" if name in required else _default(field.get("default"))
        rows.append((f"`{name}`", _type(field, definitions), _unit(name), default, _sentence(meaning)))
    return _rows(("key", "type", "unit", "default", "meaning"), rows)


def _attributes(docstring: str) -> dict[str, str]:
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


def _type(field: Schema, definitions: Schema) -> str:
    """Return a type as a person would say it, with its bounds."""
    if "$ref" in field:
        field = definitions[field["$ref"].rpartition("/")[2]]
    if "anyOf" in field:
        choices = [_type(choice, definitions) for choice in field["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(choices))
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return ", ".join("none" if value == "" else f"`{_yaml(value)}`" for value in values)
    if field.get("type") == "array":
        return _list(field, definitions)
    if field.get("type") == "object":
        return "mapping"
    if field.get("format") == "path":
        return "path"
    name = TYPES.get(field.get("type", ""), "any")
    return " ".join([name, ", ".join(_bounds(field))]).strip()


def _list(field: Schema, definitions: Schema) -> str:
    if "prefixItems" in field:
        items = [_type(item, definitions).replace("`, `", "` or `") for item in field["prefixItems"]]
        return f"[{', '.join(items)}]"
    return f"list of {_type(field.get('items', {}), definitions)}"


def _bounds(field: Schema) -> Iterator[str]:
    for key, words in BOUNDS.items():
        if key in field and abs(field[key]) < HUGE:
            yield words.format(field[key])


def _unit(name: str) -> str:
    if name in PHOTONS:
        return "photons"
    return next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")


def _default(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, str) and Path(value).is_absolute():
        value = Path(value).relative_to(ROOT) if Path(value).is_relative_to(ROOT) else Path(value).name
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """Return a value as it would stand in a YAML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value)


def commands(app: typer.Typer) -> str:
    """Returns a section for every command: usage, arguments and options."""
    return "\n\n".join(_command(info.callback, info.name) for info in app.registered_commands) + "\n"


class Parameter(NamedTuple):
    """One argument or option, as its function declares it."""

    name: str
    kind: Any
    info: typer.models.ParameterInfo
    default: Any

    @property
    def is_argument(self) -> bool:
        """Whether it stands without a name."""
        return isinstance(self.info, typer.models.ArgumentInfo)

    @property
    def is_required(self) -> bool:
        """Whether the command needs it."""
        return self.default is inspect.Parameter.empty

    @property
    def spelling(self) -> str:
        """What is typed."""
        if self.is_argument:
            name = (self.info.metavar or self.name.upper()).strip("[]")
            return name if self.is_required else f"[{name}]"
        dashed = self.name.replace("_", "-")
        both = f"--{dashed}/--no-{dashed}" if self.kind is bool else f"--{dashed}"
        # Inside `Annotated`, typer takes the first name for a default.
        names = [
            text for text in (self.info.default, *(self.info.param_decls or ())) if isinstance(text, str)
        ]
        return " / ".join((names or [both])[0].split("/"))


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """Returns the arguments and options of a command's function."""
    hints = get_type_hints(function, include_extras=True)
    return [
        Parameter(name, hints[name].__origin__, hints[name].__metadata__[0], parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    ]


def _command(function: Callable[..., Any], name: str | None) -> str:
    name, listed = name or function.__name__, parameters(function)
    arguments = [parameter.spelling for parameter in listed if parameter.is_argument]
    usage = " ".join([f"ptychostream {name}", *arguments, "[OPTIONS]"])
    rows = [
        (f"`{parameter.spelling}`", _value(parameter), _standard(parameter), _help(parameter))
        for parameter in listed
    ]
    text = " ".join((inspect.getdoc(function) or "").split())
    parts = [f"## {name}", text, f"```text\n{usage}\n```"]
    return "\n\n".join(parts + ([_rows(("what", "value", "default", "meaning"), rows)] if rows else []))


def _value(parameter: Parameter) -> str:
    kinds = [kind for kind in get_args(parameter.kind) or [parameter.kind] if kind is not type(None)]
    if bool in kinds:
        return ""
    literals = [choice for kind in kinds for choice in (get_args(kind) or [kind]) if isinstance(choice, str)]
    if literals:
        return ", ".join(f"`{choice}`" for choice in literals)
    names = {
        "int": "whole number",
        "float": "number",
        "str": "text",
        "Path": "path",
        "list": "text, repeated",
    }
    name = names[(get_origin(kinds[0]) or kinds[0]).__name__]
    least = parameter.info.min
    return name if least is None else f"{name} ≥ {least:g}"


def _standard(parameter: Parameter) -> str:
    if isinstance(parameter.info.show_default, str):
        return parameter.info.show_default
    if parameter.is_required:
        return "required"
    if parameter.kind is bool:
        names = parameter.spelling.split(" / ")
        return f"`{names[not parameter.default]}`" if len(names) == 2 else "off"
    return "" if parameter.default in (None, [], float("inf")) else f"`{parameter.default}`"


def _help(parameter: Parameter) -> str:
    variable = f" In the environment: `{parameter.info.envvar}`." if parameter.info.envvar else ""
    return _sentence(parameter.info.help or "") + ("." + variable if variable else "")


def message_tables(module: Any) -> str:
    """Returns the short names of types, then a section for every message in the order of the source."""
    (tree,) = [ast.parse(inspect.getsource(module))]
    aliases = [
        (f"`{node.targets[0].id}`", _type_name(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_type(node.value)
    ]
    kinds = [
        kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, msgspec.Struct)
    ]
    own = [kind for kind in kinds if kind.__module__ == module.__name__]
    text = "\n\n".join(["## Types with bounds", _rows(("name", "type"), aliases), *map(_message, own)])
    # A bound that has a name is shown as the number that it is.
    return (
        re.sub(r"`max_length ([A-Z_]+)`", lambda name: f"`max_length {getattr(module, name[1])}`", text)
        + "\n"
    )


def _is_type(node: ast.expr) -> bool:
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
        return False
    return node.value.id in ("Annotated", "Literal", "tuple")


def _message(kind: type) -> str:
    source, docstring = textwrap.dedent(inspect.getsource(kind)), inspect.getdoc(kind) or ""
    text, meanings = docstring.partition("Attributes\n---")[0].strip(), _attributes(docstring)
    base = kind.__bases__[0]
    if base is not msgspec.Struct and base.__name__ != "Message":
        text += f"\n\nIt has the fields of [`{base.__name__}`](#{base.__name__.lower()}) as well."
    fields = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AnnAssign)]
    rows = [_message_field(node, source, meanings) for node in fields if "ClassVar" not in ast.dump(node)]
    table = [_rows(("field", "type", "default", "meaning"), rows)] if rows else []
    return "\n\n".join([f"## {kind.__name__}", text, *table])


def _message_field(
    node: ast.AnnAssign, source: str, meanings: Mapping[str, str]
) -> tuple[str, str, str, str]:
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    name, comments = ast.unparse(node.target), [line.partition("  # ")[2] for line in lines]
    meaning = meanings.get(name, " ".join(filter(None, comments)))
    default = "required" if node.value is None else f"`{ast.unparse(node.value)}`"
    return f"`{name}`", _type_name(node.annotation), default, _sentence(meaning)


def _type_name(node: ast.expr) -> str:
    """Return a type as it is written, and after it the bounds that it is annotated with."""
    bounds: list[str] = []

    class WithoutBounds(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            self.generic_visit(node)
            if ast.unparse(node.value) != "Annotated" or not isinstance(node.slice, ast.Tuple):
                return node
            kind, meta = node.slice.elts
            assert isinstance(meta, ast.Call)  # noqa: S101 -- nothing else annotates a field
            bounds.extend(f"{word.arg} {ast.unparse(word.value)}" for word in meta.keywords)
            return kind

    kind = ast.unparse(WithoutBounds().visit(node))
    return ", ".join([f"`{kind}`", *(f"`{bound}`" for bound in bounds)])


def _sentence(text: str) -> str:
    """Return a meaning as a table shows it: in one line, without a full stop."""
    return " ".join(text.split()).rstrip(".")


def _rows(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
