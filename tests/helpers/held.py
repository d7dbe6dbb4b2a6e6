"""What a process holds, as the system counts it."""

import re
from pathlib import Path
from typing import NamedTuple


class Held(NamedTuple):
    """Open files and sockets, maps of files below a folder, and memory.

    Attributes
    ----------
    descriptors, maps : int
    memory_mb : float
        Resident, without what lies in files: their pages are the system's.
    """

    descriptors: int
    maps: int
    memory_mb: float

    def since(self, before: "Held") -> "Held":
        """Return what is held more than `before`."""
        return Held(
            self.descriptors - before.descriptors, self.maps - before.maps, self.memory_mb - before.memory_mb
        )


def held_by(pid: int, folder: Path) -> Held:
    """Return what the process `pid` holds; of maps, those of files below `folder`."""
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text()
    return Held(
        descriptors=len(list((process / "fd").iterdir())),
        maps=sum(str(folder) in line for line in (process / "maps").read_text().splitlines()),
        memory_mb=int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024,
    )
