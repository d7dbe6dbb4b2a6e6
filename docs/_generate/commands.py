"""Tables of commands, from the functions of the command line."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import typer

from docs._generate.tables import sentence, table


def commands(app: typer.Typer) -> str:
    """Returns a section for every command: usage, arguments and options."""
    return (
        "\n\n".join(_command(info.callback, info.name, defaults_of(info)) for info in app.registered_commands)
        + "\n"
    )


def defaults_of(info: typer.models.CommandInfo) -> dict[str, Any]:
    """Returns the defaults that a command takes from elsewhere, by parameter."""
    return getattr(info.cls, "defaults", dict)()


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


def _command(function: Callable[..., Any], name: str | None, defaults: dict[str, Any]) -> str:
    name = name or function.__name__
    listed = [
        parameter._replace(default=defaults.get(parameter.name, parameter.default))
        for parameter in parameters(function)
    ]
    arguments = [parameter.spelling for parameter in listed if parameter.is_argument]
    usage = " ".join([f"ptychostream {name}", *arguments, "[OPTIONS]"])
    rows = [
        (f"`{parameter.spelling}`", _value(parameter), _standard(parameter), _help(parameter))
        for parameter in listed
    ]
    text = " ".join((inspect.getdoc(function) or "").split())
    parts = [f"## {name}", text, f"```text\n{usage}\n```"]
    return "\n\n".join(parts + ([table(("what", "value", "default", "meaning"), rows)] if rows else []))


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
    return sentence(parameter.info.help or "") + ("." + variable if variable else "")
