"""The `ledger` command: where every frame of a scan is at every stage, for people, as CSV and as JSON.

Nothing is written to the scan: it may be going on, be finished, or have been left by a run that was killed.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from launch.outputs import check_outputs
from stream.atomic import replacing
from stream.durability.mend import damage_of
from stream.plain_json import plain_json
from stream.record.account import Ranges, counted, incompleteness, spelt
from stream.record.columns import DamagedScanError
from stream.record.scan import Scan, names_of_scans
from stream.record.standing import AWAITED, Standing, n_in, standings
from stream.stages.inference.leases import worker_name

SAVES = ("recordings", "demo")  # folders that `run` and `demo` save to where nothing else is said
MOST_RANGES = 8  # that are named on the screen; files have all
_TIMES = ("time_ms_p50", "time_ms_p99")
CSV_COLUMNS = ("scan", "stage", "what", "n_frames", "frames", *_TIMES)
NOT_ON_RECORD = "not recorded"
_WORDS = {AWAITED: "to come"}  # of what is not called by its state


def ledger(
    source: Path | None,
    *,
    csv_file: Path | None = None,
    json_file: Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> int:
    """Shows where every frame of a scan is; returns the exit status.

    Parameters
    ----------
    source : Path or None
        As of `scan_folder`.
    csv_file, json_file : Path, optional
        Get the same figures, with the numbers of all frames that are not done.
    overwrite : bool
        Whether files that exist may be replaced.
    console : rich.console.Console, optional

    Raises
    ------
    ValueError
        If there is no such scan, or it is damaged.
    OSError
        If a file cannot be written.
    """
    folder = scan_folder(source)
    check_outputs({"--csv": csv_file, "--json": json_file}, inputs=[folder], overwrite=overwrite)
    if damage := damage_of(folder):
        raise DamagedScanError(f"scan {folder.name} cannot be read: {damage}")
    scan = Scan(folder)
    found = standings(scan)
    console = console or Console()
    for line in lines_of(scan, found):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if csv_file:
        _write(csv_file, csv_of(scan, found))
    if json_file:
        _write(json_file, plain_json(figures_of(scan, found), indent=2) + b"\n")
    return 0


def scan_folder(source: Path | None) -> Path:
    """Returns the folder of the scan that `source` names.

    Parameters
    ----------
    source : Path or None
        Folder of a scan; a folder that runs save to, or its folder of scans, for the newest in there; None
        for the newest in `SAVES`.

    Raises
    ------
    ValueError
        If there is none.
    """
    if source is None:
        newest = [scan for save in SAVES for scan in _newest_in(Path(save))]
        if not newest:
            raise ValueError(
                f"no scan in ./{' or ./'.join(SAVES)}: name the folder of a scan, or --save of a run"
            )
        return max(newest, key=lambda scan: (scan / "scan.json").stat().st_mtime)
    if (source / "scan.json").is_file():
        return source.resolve()
    if found := _newest_in(source):
        return found[0]
    if source.is_file():
        raise ValueError(f"{source} is a file: a ledger lies in the folder of a scan that a run recorded")
    why = "holds no scan yet" if source.is_dir() else "is not there"
    raise ValueError(f"{source} {why}: wanted the folder of a scan (SAVE/scans/0000-...), or SAVE")


def _newest_in(save: Path) -> list[Path]:
    for scans in (save / "scans", save):
        if scans.is_dir() and (names := list(names_of_scans(scans))):
            return [scans / names[-1]]
    return []


def figures_of(scan: Scan, found: dict[str, Standing]) -> dict[str, Any]:
    """Returns the figures by name; JSON can hold all of them."""
    account = found["subscriber"].account
    return {
        "scan": scan.name,
        "expected": account.expected,
        "recorded": account.recorded,
        "lost": account.lost,
        "awaited": account.awaited,
        "open_stages": _open_stages(scan, found),
        "incomplete": incompleteness(scan),
        "stages": [_figures_of_stage(stage, standing) for stage, standing in found.items()],
    }


def _figures_of_stage(stage: str, standing: Standing) -> dict[str, Any]:
    account, (p50_ms, p99_ms) = standing.account, standing.times_ms or (None, None)
    return {
        "stage": stage,
        "done": account.done,
        "pending": account.pending,
        "dropped": account.dropped,
        "time_ms_p50": p50_ms,
        "time_ms_p99": p99_ms,
        "workers": {
            worker_name(worker): {"done": share.done}
            | dict(zip(_TIMES, share.times_ms or (None, None), strict=True))
            for worker, share in standing.by_worker.items()
        },
        "not_done": {
            what: {"n_frames": n_in(ranges), "frames": ranges} for what, ranges in standing.not_done.items()
        },
    }


def csv_of(scan: Scan, found: dict[str, Standing]) -> bytes:
    """Returns the figures as CSV: of each stage a row for what is done and one for each thing that is not."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for stage, standing in found.items():
        names = [stage, *map(worker_name, standing.by_worker)]
        parts = [(standing.account.done, standing.times_ms), *standing.by_worker.values()]
        for name, (n_done, times_ms) in zip(names, parts, strict=True):
            times = ["", ""] if times_ms is None else [f"{time_ms:.3f}" for time_ms in times_ms]
            writer.writerow([scan.name, name, "done", n_done, "", *times])
        for what, ranges in standing.not_done.items():
            writer.writerow([scan.name, stage, what, n_in(ranges), spelt(ranges), "", ""])
    return text.getvalue().encode()


def lines_of(scan: Scan, found: dict[str, Standing]) -> Iterator[str]:
    """Yields the lines that people read."""
    account = found["subscriber"].account
    parts = [f"{account.recorded} recorded", f"{account.lost} lost"]
    parts += [f"{account.awaited} to come"] * bool(account.awaited)
    yield f"{scan.name}: {account.expected} expected = {' + '.join(parts)}"
    still_open = _open_stages(scan, found)
    yield f"not closed by {', '.join(still_open)}" if still_open else "closed by every stage"
    yield ""
    head = [f"of {account.recorded} recorded", "done", "pending", "dropped", "median ms", "99 % ms"]
    yield from _in_columns([head, *(row for part in found.items() for row in _rows(*part))])
    yield "ms from the end of the exposure until the stage was done with the frame"
    rows = [
        [stage, _WORDS.get(what, what.replace("_", " ")), _in_words(ranges)]
        for stage, standing in found.items()
        for what, ranges in standing.not_done.items()
    ]
    if rows:
        yield ""
        yield from _in_columns([["not done by", "why", "frames"], *rows])


def _rows(stage: str, standing: Standing) -> Iterator[list[str]]:
    """Yield the row of a stage, and where several workers share its frames one of each."""
    account = standing.account
    dropped = [f"{n} {_WORDS.get(what, what.replace('_', ' '))}" for what, n in account.dropped.items()]
    times = _times_in_words(standing.times_ms, account.done)
    yield [stage, str(account.done), str(account.pending), ", ".join(dropped) or "0", *times]
    for worker, share in standing.by_worker.items():
        yield [
            f"  {worker_name(worker)}",
            str(share.done),
            "",
            "",
            *_times_in_words(share.times_ms, share.done),
        ]


def _times_in_words(times_ms: tuple[float, float] | None, n_done: int) -> list[str]:
    if times_ms is None:
        return [NOT_ON_RECORD if n_done else "-", ""]
    return [f"{time_ms:.1f}" for time_ms in times_ms]


def _in_words(ranges: Ranges) -> str:
    left = n_in(ranges[MOST_RANGES:])
    return f"{counted(n_in(ranges))}: {spelt(ranges[:MOST_RANGES])}" + f" and {left} more" * bool(left)


def _in_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _open_stages(scan: Scan, found: dict[str, Standing]) -> list[str]:
    return [stage for stage in found if not scan.count(stage, "closed")]


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
