"""A configuration file, the environment and `--set` become one `Config`, or one line per mistake."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from launch.config.config import Config

RECIPES = Path(__file__).parents[1] / "recipes"
ENVIRONMENT_PREFIX = "PTYCHOSTREAM__"

Key = tuple[str, ...]

_WANTED = {
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "model_type": "a section with keys",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
}


class ConfigError(ValueError):
    """A configuration that cannot be used; one line per mistake."""


def load_config(
    source: str | Path, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Config:
    """Returns the configuration of a YAML file, changed by the environment and then by overrides.

    Parameters
    ----------
    source : str or Path
        The file, or the name of a recipe that comes with the package.
    overrides : sequence of str
        "section.key=value", the value as in YAML.
    environ : mapping, optional
        Environment; PTYCHOSTREAM__SECTION__KEY sets section.key.

    Raises
    ------
    ConfigError
        With one line per mistake: where, what was wanted, what came.

    Notes
    -----
    Relative paths start at the folder of the file, for recipes at the current one.
    """
    path = _find(source)
    settings = _read(path)
    origins: dict[Key, str] = {}
    for origin, key, text in [*_from_environment(environ or {}), *map(_from_override, overrides)]:
        _put(settings, key, _parse(text, origin), origin)
        origins[key] = origin
    folder = Path.cwd() if path.parent == RECIPES else path.parent.resolve()
    try:
        return Config.model_validate(settings, context={"folder": folder})
    except ValidationError as error:
        lines = [_describe(details, path.name, origins) for details in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def recipes() -> list[str]:
    """Returns the names of the recipes for runs that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if not path.stem.startswith("train-"))


def files_read(source: str | Path, config: Config) -> list[Path]:
    """Returns the file of a configuration and all files that it names: probe, positions, weights, keys ..."""
    return [_find(source), *_files_in(config)]


def _files_in(section: BaseModel) -> Iterator[Path]:
    for _, value in section:
        if isinstance(value, BaseModel):
            yield from _files_in(value)
        elif isinstance(value, Path) and value.is_file():
            yield value


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    recipe = RECIPES / f"{source}.yaml"
    if path.parent == Path() and recipe.is_file():
        return recipe
    raise ConfigError(f"{source}: no such file, and no recipe; the recipes are {', '.join(recipes())}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in {key for key in keys if keys.count(key) > 1}:
            raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    settings = _parse(path.read_text(), path.name)
    if not isinstance(settings, dict):
        raise ConfigError(f"{path.name}: wanted sections with keys, got {settings!r}")
    return settings


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{origin}{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from None


def _from_environment(environ: Mapping[str, str]) -> Iterable[tuple[str, Key, str]]:
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            yield f"environment {name}", key, environ[name]


def _from_override(text: str) -> tuple[str, Key, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {text}: wanted section.key=value")
    return "--set", tuple(name.strip().split(".")), value


def _put(settings: dict[str, Any], key: Key, value: Any, origin: str) -> None:
    for depth, part in enumerate(key[:-1]):
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{origin}: {'.'.join(key[: depth + 1])} is a value, not a section")
    settings[key[-1]] = value


def _describe(details: ErrorDetails, file: str, origins: Mapping[Key, str]) -> str:
    key = tuple(str(part) for part in details["loc"])
    where = next((origins[key[:n]] for n in range(len(key), 0, -1) if key[:n] in origins), file)
    return ": ".join([where, *([".".join(key)] if key else []), _complaint(details, key)])


def _complaint(details: ErrorDetails, key: Key) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{_guess(key)}"
    if kind == "missing":
        fields = _fields_at(key[:-1])
        return f"missing: {fields[key[-1]].description if fields else 'one value more'}"
    if kind == "value_error":
        return str(context["error"])
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else details["msg"]
    return f"wanted {wanted}, got {details['input']!r}"


def _guess(key: Key) -> str:
    names = list(_fields_at(key[:-1]))
    guesses = difflib.get_close_matches(key[-1], names, n=1)
    return f", did you mean {guesses[0]!r}?" if guesses else f"; the keys here are {', '.join(names)}"


def _fields_at(key: Key) -> dict[str, FieldInfo]:
    """Return the fields of the section at `key`, none where a value is or a part of one."""
    model: Any = Config
    for part in key:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    return getattr(model, "model_fields", {})
