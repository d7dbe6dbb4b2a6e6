"""How much memory there is."""

import os


def memory_bytes() -> int:
    """Returns how much memory this computer has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
