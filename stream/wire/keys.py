"""CURVE keys on the disk: two files of one name, the secret one for its owner alone."""

import os
import re
import tempfile
from pathlib import Path

from stream.atomic import replacing
from stream.wire.sockets import new_keys

_PUBLIC = '#  CURVE key of {name}\n\nmetadata\ncurve\n    public-key = "{key}"\n'
_Z85 = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


def create_keys(folder: Path, name: str, *, overwrite: bool = False) -> Path:
    """Writes a CURVE key pair `name`.key and `name`.key_secret into `folder`; returns the secret's path.

    The secret is readable by its owner alone from its first byte on.

    Raises
    ------
    ValueError
        If `name` is no plain name, which would leave the folder.
    NotADirectoryError
        If `folder` is a file.
    FileExistsError
        If one of the two is there and `overwrite` does not say that peers may be locked out.
    """
    if not re.fullmatch(r"\w[\w.@ -]*", name):
        raise ValueError(f"keys of {name!r}: wanted a plain name, of letters, digits and . _ @ -")
    if not folder.is_dir() and os.path.lexists(folder):
        raise NotADirectoryError(f"{folder} is no folder: keys are two files in one")
    folder.mkdir(parents=True, exist_ok=True)
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    if there := [str(path) for path in (secret, public) if path.exists() and not overwrite]:
        raise FileExistsError(f"{', '.join(there)}: there already; --overwrite replaces what is there")
    public_key, secret_key = new_keys()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as private:
        told = _PUBLIC.format(name=name, key=public_key)
        new_public = _written(Path(private, public.name), told, 0o644)
        new_secret = _written(Path(private, secret.name), f'{told}    secret-key = "{secret_key}"\n', 0o600)
        # A link, unlike a rename, refuses a name that somebody has taken since.
        place = os.replace if overwrite else os.link
        place(new_secret, secret)
        place(new_public, public)
    return secret


def write_public_key(file: Path, key: str) -> None:
    """Writes a public CURVE key, 40 characters of Z85, to a file as `ptychostream keys` makes them.

    Raises
    ------
    ValueError
        If it is no key.
    """
    if not _Z85.fullmatch(key):
        raise ValueError(f"{file.stem}: wanted a public key, 40 characters of Z85, got {len(key)} characters")
    with replacing(file) as temporary:
        temporary.write_text(_PUBLIC.format(name=file.stem, key=key))


def _written(path: Path, text: str, mode: int) -> Path:
    """Write a new file that others can read no sooner and no more than `mode` says."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    return path
