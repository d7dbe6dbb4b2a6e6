"""Wrong values of each kind, for the options of all commands and for the settings of a file."""

import inspect
import pickle
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import typer

from launch.cli import app

NUMBERS = ("banana", "", "nan", "1e", "1,5", "[514]")
ADDRESSES = (
    "banana",
    "",
    "tcp://",
    "tcp://127.0.0.1",
    "tcp://127.0.0.1:99999",
    "udp://127.0.0.1:1",
    "tcp://*:x",
)


class Parameter(NamedTuple):
    """An option or argument of a command; `option` is "" for an argument."""

    command: str
    name: str
    option: str
    kind: Any
    info: Any
    default: Any


def parameters() -> Iterator[Parameter]:
    """Everything that any command takes."""
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        hints = get_type_hints(command.callback, include_extras=True)
        defaults = _defaults(command.callback)
        for parameter, hint in hints.items():
            if parameter != "return":
                kind, info = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, None)
                yield Parameter(
                    name, parameter, _spelled(parameter, info), _plain(kind), info, defaults.get(parameter)
                )


def _defaults(function: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def _spelled(name: str, info: Any) -> str:
    if isinstance(info, typer.models.ArgumentInfo):
        return ""
    declared = [one for one in (info.default, *(info.param_decls or ())) if str(one).startswith("--")]
    return (declared[0] if declared else f"--{name.replace('_', '-')}").partition("/")[0]


def _plain(kind: Any) -> Any:
    """The type without None, and of lists that of the entries."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    return get_args(kind)[0] if get_origin(kind) is list else kind


def wrong_numbers(parameter: Parameter) -> list[str]:
    """What is no number, not whole where it has to be, not finite, or outside of the bounds."""
    wrong = list(NUMBERS)
    if parameter.kind is int:
        wrong.append("1.5")
    elif parameter.default != float("inf") and parameter.name != "timeout":
        wrong += ["inf", "-inf"]
    if parameter.info.min is not None:
        wrong.append(str(parameter.info.min - 1))
    if parameter.info.max is not None:
        wrong.append(str(parameter.info.max + 1))
    return wrong


class Places:
    """Files and folders that cannot be what an option wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.empty, self.garbage, self.pickled = (folder / name for name in ("empty", "garbage", "pickled"))
        self.empty.touch()
        self.garbage.write_bytes(bytes(range(256)) * 8)
        self.pickled.write_bytes(pickle.dumps({"geometry": [1, 2]}))
        self.missing, self.below_a_file = folder / "nowhere" / "missing", self.garbage / "below"
        self.too_long = folder / ("x" * 300)

    def to_read(self) -> list[str]:
        """Of no file that anything could be read from."""
        unreadable = (self.missing, self.below_a_file, self.folder, self.empty, self.garbage, self.pickled)
        return ["", *map(str, unreadable)]

    def to_write(self) -> list[str]:
        """Where no file can be."""
        return [str(self.folder), str(self.below_a_file), str(self.too_long)]


def is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal


def said_in_refusal(call: Callable[..., tuple[int, str, str]], arguments: list[str]) -> str:
    """What a command says when it refuses: an exit status, one paragraph, and nothing of Python's own."""
    status, out, err = call(*arguments)
    where = f"{arguments}\n{out}{err}"
    assert status in (1, 2), f"exit status {status}: {where}"
    said = err or out
    assert "Traceback" not in out + err, where
    usage, _, paragraph = said.strip().rpartition("\n\n")
    assert not usage or usage.startswith("Usage: "), where
    assert paragraph.strip(), where
    assert not re.search(r"\[Errno -?\d+\]|<class |object at 0x|pydantic", said), where
    return said
