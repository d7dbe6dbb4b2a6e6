"""Paths that a configuration names: seen from the folder of its file, and there where they are read."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo


def _absolute(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path.cwd())
    try:
        return (folder / path.expanduser()).resolve()
    except RuntimeError as error:
        reason = "its symlinks lead in a circle" if "loop" in str(error) else "there is no such home folder"
        raise ValueError(f"{path}: {reason}") from error


def _existing(path: Path, info: ValidationInfo) -> Path:
    path = _absolute(path, info)
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    return path


OutputPath = Annotated[Path, AfterValidator(_absolute)]
InputPath = Annotated[Path, AfterValidator(_existing)]
