"""A configuration file, the environment and `--set` become one `Config`, or one line per mistake."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from launch.config.config import Config
from launch.config.reading import ConfigError, Key, checked, parse, read_mapping

RECIPES = Path(__file__).parents[1] / "recipes"
ENVIRONMENT_PREFIX = "PTYCHOSTREAM__"


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
    settings = read_mapping(path)
    origins: dict[Key, str] = {}
    for origin, key, text in [*_from_environment(environ or {}), *map(from_override, overrides)]:
        origins[_put(settings, key, parse(text, origin), origin)] = origin

    def origin_of(key: Key) -> str:
        return next((origins[key[:n]] for n in range(len(key), 0, -1) if key[:n] in origins), path.name)

    folder = Path.cwd() if path.parent == RECIPES else path.parent.resolve()
    return checked(Config, settings, folder=folder, origin_of=origin_of)


def override(key: str, value: str | Path) -> str:
    """Returns the override that sets `key` to this text, whatever characters it has."""
    return f"{key}={json.dumps(str(value), ensure_ascii=False)}"


def recipes() -> list[str]:
    """Returns the names of the recipes of runs that come with the package."""
    return sorted(
        path.stem for path in RECIPES.glob("*.yaml") if not path.stem.startswith(("train-", "simulate-"))
    )


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
    recipe = RECIPES / f"{source}.yaml"
    try:
        if path.exists() and not path.is_dir():
            return path
        if path.parent == Path() and recipe.is_file():
            return recipe
        what = "a folder, not a file" if path.is_dir() else "no such file"
    except (OSError, ValueError):  # a name that no file can have
        source, what = str(source)[:80], "no such file"
    raise ConfigError(f"{source}: {what}, and no recipe; the recipes are {', '.join(recipes())}")


def _from_environment(environ: Mapping[str, str]) -> Iterable[tuple[str, Key, str]]:
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            yield f"environment {name}", key, environ[name]


def from_override(text: str) -> tuple[str, Key, str]:
    """Returns what `section.key=value` says: origin, key, value as YAML; raises ConfigError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {text}: wanted section.key=value")
    return "--set", tuple(name.strip().split(".")), value


def _put(settings: dict[str, Any], key: Key, value: Any, origin: str) -> Key:
    """Put `value` at `key`; return the key, or the first of its sections that was not there."""
    new = key
    for depth, part in enumerate(key[:-1]):
        if part not in settings:
            settings[part] = {}
            new = min(new, key[: depth + 1], key=len)
        settings = settings[part]
        if not isinstance(settings, dict):
            raise ConfigError(f"{origin}: {'.'.join(key[: depth + 1])} is a value, not a section")
    settings[key[-1]] = value
    return new
