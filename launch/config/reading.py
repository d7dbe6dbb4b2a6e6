"""YAML becomes settings, or one line per mistake: file, key, what was wanted, what came."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

Key = tuple[str, ...]
Model = TypeVar("Model")

_LONGEST = 80  # characters of a value that is shown
_ALIKE, _MOST_GUESSES = 0.75, 3  # of names that may be meant, where there is more than one
_WANTED = {
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number that is not as large",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "text like {pattern}",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys with values",
    "too_long": "at most {max_length} values",
    "too_short": "at least {min_length} values",
    "model_type": "a section with keys",
    "dataclass_type": "a section with keys",
    "invalid_key": "a key that is text",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
}


class ConfigError(ValueError):
    """A configuration that cannot be used; one line per mistake."""


def read_settings(path: Path, model: type[Model]) -> Model:
    """Returns the settings in a YAML file; relative paths in it start at its folder.

    Raises
    ------
    ConfigError
        With one line per mistake.
    """
    return checked(model, read_mapping(path), folder=path.absolute().parent, origin_of=lambda key: path.name)


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns the sections in a YAML file; raises ConfigError if it has none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: wanted YAML, which is text in UTF-8, found other bytes") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    settings = parse(text, path.name)
    if not isinstance(settings, dict):
        found = "nothing" if settings is None else shown(settings)
        raise ConfigError(f"{path.name}: wanted sections with keys, got {found}")
    return settings


def parse(text: str, origin: str) -> Any:
    """Returns the YAML value in `text`; raises ConfigError, which begins with `origin`."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{origin}{line}: not YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{origin}: not YAML: {error.reason}: {chr(error.character)!r}") from None
    except RecursionError:
        raise ConfigError(
            f"{origin}: not YAML that can be read: brackets within brackets without end"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # such as a date in month 13
        raise ConfigError(f"{origin}: not YAML: {error}") from None


def checked(model: type[Model], settings: Any, *, folder: Path, origin_of: Callable[[Key], str]) -> Model:
    """Returns `settings` as a model.

    Parameters
    ----------
    model : type
        A `Section` or a dataclass.
    settings : mapping
    folder : Path
        Where relative paths start.
    origin_of : callable
        Gets a key and returns where it was said.

    Raises
    ------
    ConfigError
        With one line per mistake.
    """
    try:
        return TypeAdapter(model).validate_python(settings, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(described(error, model, origin_of)) from None


def described(
    error: ValidationError, model: Any = None, origin_of: Callable[[Key], str] = lambda key: ""
) -> str:
    """Returns a line per mistake: where `origin_of` the key is, the key, what was wanted and what came."""
    lines, listed = [], set[Key]()  # sections whose keys are named already
    for details in error.errors():
        key = tuple(str(part) for part in details["loc"])
        complaint = _complaint(details, key, model, listed)
        lines.append(": ".join(filter(None, [origin_of(key), ".".join(key), complaint])))
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Returns a value as it is quoted in an error."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


def _complaint(details: ErrorDetails, key: Key, model: Any, listed: set[Key]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key{_guess(key, model, listed)}"
    if kind == "missing":
        meanings = fields_at(model, key[:-1])
        return f"missing: {meanings[key[-1]]}" if meanings else "missing: one value more"
    if kind == "value_error":
        return str(context["error"])
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else details["msg"]
    return f"wanted {wanted}, got {shown(details['input'])}"


def _guess(key: Key, model: Any, listed: set[Key]) -> str:
    """Return which keys are near, or all that the section has unless it is in `listed`, where it then is."""
    section, name = key[:-1], key[-1].lower()
    names = list(fields_at(model, section))
    nearest = (
        difflib.get_close_matches(name, names, cutoff=_ALIKE)
        or [known for known in names if len(name) > 2 and name in known]
        or difflib.get_close_matches(name, names, n=1)
    )
    if nearest:
        *others, last = map(repr, nearest[:_MOST_GUESSES])
        return f", did you mean {', '.join(others)}{' or ' * bool(others)}{last}?"
    if not names or section in listed:
        return ""
    listed.add(section)
    return f"; the keys here are {', '.join(names)}"


def fields_at(model: Any, key: Key) -> Mapping[str, str]:
    """Returns the names and meanings of the settings in the section at `key`, none where a value is."""
    for part in key:
        model = next((kind for name, kind, _ in _fields(model) if name == part), None)
    return {name: meaning for name, _, meaning in _fields(model)}


def _fields(model: Any) -> list[tuple[str, Any, str]]:
    """Return name, type and meaning of each setting in a section, or in the one section that may be there."""
    if get_origin(model) in (Union, UnionType, Annotated):
        return next((fields for kind in get_args(model) if (fields := _fields(kind))), [])
    if not isinstance(model, type):
        return []
    if issubclass(model, BaseModel):
        return [
            (name, field.annotation, field.description or name) for name, field in model.model_fields.items()
        ]
    if dataclasses.is_dataclass(model):
        return [(field.name, field.type, field.name) for field in dataclasses.fields(model)]
    return []
