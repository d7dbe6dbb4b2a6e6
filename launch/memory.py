"""How much memory there is, and who holds it."""

import os
from pathlib import Path


def memory_bytes() -> int:
    """Returns how much memory this computer has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resident_bytes(pid: int) -> int | None:
    """Returns how much memory the process `pid` of this computer holds, None if there is none."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None
