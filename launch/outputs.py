"""Which files a command may write. It asks before it begins to work, so that nothing that exists is lost."""

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

LONGEST_NAME = 255  # bytes, on the file systems of Linux


def check_outputs(
    outputs: Mapping[str, Path | None], *, inputs: Iterable[Path | None] = (), overwrite: bool
) -> None:
    """Refuses what would lose a file or cannot be written.

    Parameters
    ----------
    outputs : mapping of str to Path or None
        Every file that the command will write, by what people call it: "--output", "picture".
    inputs : iterable of Path or None
        Files and folders that it reads. None of them is replaced, whatever `overwrite` says, nor is a file
        in one of these folders.
    overwrite : bool
        Whether other files that exist may be replaced.

    Raises
    ------
    ValueError
        If an output is an input, or two outputs are one file.
    FileExistsError
        If there are files already.
    OSError
        If a file cannot be written there: its folder cannot be made, is write-protected ...
    """
    wanted = {name: path for name, path in outputs.items() if path is not None}
    read = [path for path in inputs if path is not None]
    for name, path in wanted.items():
        _check_place(name, path)
        if found := next((one for one in read if _would_lose(path, one)), None):
            raise ValueError(f"{name}: {path} would replace what is read, {found}: name another file")
    names = list(wanted)
    for index, name in enumerate(names):
        for other in names[:index]:
            if is_same(wanted[name], wanted[other]):
                raise ValueError(
                    f"{other} and {name} would both be written to {wanted[name]}: name two files"
                )
    existing = [] if overwrite else [str(path) for path in wanted.values() if path.is_file()]
    if existing:
        raise FileExistsError(f"{', '.join(existing)}: there already; --overwrite replaces what is there")


def is_same(path: Path, other: Path) -> bool:
    """Returns whether both name one file, also by links, or would if it were there."""
    if path.resolve() == other.resolve():
        return True
    return path.exists() and other.exists() and path.samefile(other)


def _would_lose(path: Path, read: Path) -> bool:
    if read.is_dir():
        return path.is_file() and path.resolve().is_relative_to(read.resolve())
    return is_same(path, read)


def _check_place(name: str, path: Path) -> None:
    """Raise OSError unless a file can be at `path`."""
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise OSError(f"{name}: {path} has a name of more than {LONGEST_NAME} bytes")
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(f"{name}: {path} cannot be written: its symlinks lead in a circle") from error
    if path.is_dir():
        raise IsADirectoryError(f"{name}: {path} is a folder, wanted the name of a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{name}: {path} is write-protected")
    if path.exists() and not path.is_file():  # a pipe or device is written to where it is
        return
    nearest = next(folder for folder in path.resolve().parents if folder.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"{name}: {path} cannot be written: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"{name}: {path} cannot be written: no permission to write in {nearest}")
