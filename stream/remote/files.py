"""What a worker has of the run on its machine: files, fetched in parts, known by their contents; scans."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from stream.atomic import written_atomically
from stream.record.scan import Scan, ScanHeader
from stream.remote.asking import Arrays, Asker
from stream.remote.messages import PART_BYTES, AskPart, Lease, Lend, Part, Question, Role, SharedFile

_SUFFIXES = {"weights": ".safetensors", "member": ".safetensors", "tuned_weights": ".safetensors"}


def scan_as_told(folder: Path, told: Lease | Lend) -> Scan:
    """Returns a new scan on the machine of a worker, of frames as the run says that they are."""
    header = ScanHeader(
        series_id=0,
        series_uid=told.scan,
        frame_shape=told.frame_shape,
        frame_dtype=told.frame_dtype,
        started_s=0.0,
    )
    return Scan.create(folder, header)


class SharedFiles:
    """The files that a run shares, as the run has them: a worker names them by their contents alone.

    Attributes
    ----------
    paths : dict of str to Path
        By SHA-256.
    """

    def __init__(self) -> None:
        self.paths: dict[str, Path] = {}
        self._known: dict[tuple[Path, str], SharedFile] = {}

    def share(self, path: Path, role: Role) -> SharedFile:
        """Returns what workers are told of a file, which is complete and does not change any more."""
        if (path, role) not in self._known:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            self._known[path, role] = SharedFile(role=role, n_bytes=len(content), sha256=digest)
            self.paths[digest] = path
        return self._known[path, role]

    def part(self, sha256: str, offset: int) -> np.ndarray:
        """Returns up to `PART_BYTES` of a file from `offset` on, (byte,) uint8.

        Raises
        ------
        ValueError
            If no file of these contents is shared, or it ends before.
        """
        if sha256 not in self.paths:
            raise ValueError(f"no file with SHA-256 {sha256} is shared here")
        with self.paths[sha256].open("rb") as file:
            content = os.pread(file.fileno(), PART_BYTES, offset) if offset < 1 << 40 else b""
        if not content:
            raise ValueError(f"{self.paths[sha256].name} ends before byte {offset}")
        return np.frombuffer(content, np.uint8)


class FetchedFiles:
    """The same files on the machine of a worker.

    Parameters
    ----------
    folder : Path
        Where they are kept; a file that is there already is not fetched again.
    asker : Asker
    """

    def __init__(self, folder: Path, asker: Asker) -> None:
        self._folder, self._asker = folder, asker

    def fetch(self, file: SharedFile, on_there: Callable[[Path], None]) -> None:
        """Calls `on_there` with the path once the file is here, at once where it was.

        `on_there` is not called where what came is not what was announced: ValueError is raised when the
        last part of that comes.
        """
        path = self._folder / f"{file.sha256}{_SUFFIXES.get(file.role, '.npy')}"
        if path.exists():
            on_there(path)
            return
        parts = dict.fromkeys(range(0, file.n_bytes, PART_BYTES), b"")
        n_left = len(parts)

        def take(offset: int, answer: Question, arrays: Arrays) -> None:
            nonlocal n_left
            if not isinstance(answer, Part) or len(arrays) != 1:
                raise ValueError(
                    f"the run does not send its {file.role}: {getattr(answer, 'reason', answer)}"
                )
            parts[offset] = arrays[0].tobytes()
            n_left -= 1
            if not n_left:
                self._keep(path, b"".join(parts.values()), file)
                on_there(path)

        for offset in parts:
            self._asker.ask(AskPart(sha256=file.sha256, offset=offset), partial(take, offset))

    def fetch_all(
        self, files: Sequence[SharedFile], on_there: Callable[[Mapping[str, Sequence[Path]]], None]
    ) -> None:
        """Calls `on_there` once with where they lie, by role, members in their order, when all are here."""
        places: list[Path | None] = [None] * len(files)

        def take(index: int, path: Path) -> None:
            places[index] = path
            if None not in places:
                tell()

        def tell() -> None:
            roles: dict[str, list[Path]] = {}
            for file, place in zip(files, places, strict=True):
                roles.setdefault(file.role, []).extend(filter(None, [place]))
            on_there(roles)

        for index, file in enumerate(files):
            self.fetch(file, partial(take, index))
        if not files:
            tell()

    def _keep(self, path: Path, content: bytes, file: SharedFile) -> None:
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise ValueError(f"the run's {file.role} came with {len(content)} other bytes than announced")
        self._folder.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as out:
            out.write(content)
