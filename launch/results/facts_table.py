"""The table that commands show people at a terminal."""

from rich.table import Table


def facts_table() -> Table:
    """Returns an empty table of names and what they stand for."""
    rows = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows.add_column()
    rows.add_column(overflow="fold")  # a path that is cut leads nowhere
    return rows
