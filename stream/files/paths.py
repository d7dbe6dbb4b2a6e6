"""Paths that a configuration names: seen from the folder of its file, and there where they are read."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo


def _absolute(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path.cwd())
    return (folder / path.expanduser()).resolve()


def _existing(path: Path, info: ValidationInfo) -> Path:
    path = _absolute(path, info)
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    return path


OutputPath = Annotated[Path, AfterValidator(_absolute)]
InputPath = Annotated[Path, AfterValidator(_existing)]
