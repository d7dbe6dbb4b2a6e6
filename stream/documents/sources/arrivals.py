"""Files that appear while scans are taken: which of those of a pattern is the newest scan's."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SERIES = "{series}"  # in a pattern: what the detector calls the series
Identity = tuple[int, int]  # of a file, whatever its name: device and inode


class FoundFile(NamedTuple):
    """A file of the pattern, as it is now."""

    path: Path
    identity: Identity
    changed_ns: int
    n_bytes: int


class Arrivals:
    """Knows which files were there before, and does not take them for new ones until they change.

    Parameters
    ----------
    pattern : Path
        With `*`, `?` and `[...]` as in a shell, and `{series}` where the name says which series it is of.
    take_existing : bool
        Whether what is there before is taken as well; with `{series}` it always is.
    """

    def __init__(self, pattern: Path, *, take_existing: bool) -> None:
        self.pattern = str(pattern)
        head, self._has_series, tail = self.pattern.partition(SERIES)
        self._glob = f"{head}*{tail}" if self._has_series else self.pattern
        self._name = re.compile("([^/]*)".join(_as_expression(part) for part in (head, tail)))
        is_taken = take_existing or self._has_series
        self._old = {} if is_taken else {one.identity: one for one in self._there()}
        self._left: dict[Identity, int] = {}  # which were read: how long they were

    def newest(self) -> FoundFile | None:
        """Returns the new file that changed last, None where there is none."""
        new = [one for one in self._there() if self._is_new(one)]
        return max(new, key=lambda one: (one.changed_ns, one.path), default=None)

    def leave(self, identity: Identity, n_bytes: int) -> None:
        """Takes note that a file has been read: it is new again when it is written anew."""
        self._left[identity] = n_bytes

    def go_on(self, identity: Identity) -> None:
        """Takes note that a file that was there before is read further."""
        self._old.pop(identity, None)

    def series_of(self, path: Path) -> str:
        """Returns what the name of a file says of its series, without leading zeros; "" for nothing."""
        found = self._name.fullmatch(str(path)) if self._has_series else None
        series = found[1] if found else ""
        return str(int(series)) if series.isascii() and series.isdigit() else series

    def _is_new(self, one: FoundFile) -> bool:
        if one.identity in self._left:
            return one.n_bytes < self._left[one.identity]
        before = self._old.get(one.identity)
        return before is None or (before.changed_ns, before.n_bytes) != (one.changed_ns, one.n_bytes)

    def _there(self) -> Iterator[FoundFile]:
        for name in [self._glob] if not glob.has_magic(self._glob) else glob.iglob(self._glob):  # noqa: PTH207
            path = Path(name)
            try:
                status = path.stat()
                is_file = path.is_file()
            except OSError:
                continue
            if is_file:
                yield FoundFile(path, (status.st_dev, status.st_ino), status.st_mtime_ns, status.st_size)


def _as_expression(pattern: str) -> str:
    """Return a pattern as a shell has it as a regular expression within one folder."""
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)) for part in pattern)
