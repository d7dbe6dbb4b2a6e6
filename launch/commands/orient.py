"""The `orient` command: which signs, axes and beam centre the frames of a scan want, and where to say so."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from launch.config.config import Config
from launch.config.edit import as_yaml, with_settings
from launch.config.file import load_config, recipes
from launch.config.reading import Key
from launch.offline.given import Given, open_given
from launch.offline.orient import OrientedScan, in_words, orient
from launch.offline.recorded import RecordedScan
from launch.offline.wanted_settings import fits_around, wanted_settings
from launch.outputs import check_outputs
from launch.results.facts_table import FactsTable, show_notes
from launch.results.summary import write_summary
from operators.optics.sampling import readable
from operators.orientation.judge import Orientation
from operators.orientation.turn import CLASSES, Turn
from stream.atomic import replacing
from stream.documents.outlets import FIELDS
from stream.files.sources import files_of
from stream.record.scan import names_of_scans

UNDECIDED = 1
_YAML = (".yaml", ".yml")
_SIGN_FROM = {
    "probe": "told by the defocus of the known probe",
    "absorption": "told by the sample, which delays the phase where it absorbs",
    "recorded": "not told by the frames: as recorded",
}


def orient_scan(
    source: str,
    *,
    given: Given | None = None,
    store: Path | None = None,
    write: Path | None = None,
    first: int = 0,
    n_frames: int,
    threads: int = 1,
    json_file: Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> int:
    """Says how the positions of a scan lie on its frames; returns the exit status, 1 where that stays open.

    Parameters
    ----------
    source : str
        A scan as of `open_given`; or a configuration, for the newest scan in the folder that it saves to.
    given : Given, optional
    store : Path, optional
    write : Path, optional
        Configuration that gets the settings found; what it was stays beside it.
    first, n_frames, threads
        As of `launch.offline.orient.orient`.
    json_file : Path, optional, gets the figures by name
    overwrite : bool, whether `json_file` is replaced
    console : rich.console.Console, optional

    Raises
    ------
    ValueError
        If there is no such scan or configuration, or nothing can come of it.
    OSError
        If a file cannot be written.
    """
    console = console or Console()
    told = load_config(source, environ=os.environ) if _is_configuration(source) else None
    config = _to_change(write) or told
    scan_source = str(_newest_scan(told)) if told else source
    kept = _free_name(write) if write else None
    inputs = [Path(scan_source), *files_of(Path(scan_source))]
    check_outputs({"--json": json_file}, inputs=[*inputs, write], overwrite=overwrite)
    check_outputs({"--write": write, "the copy of what it was": kept}, inputs=inputs, overwrite=True)
    with open_given(scan_source, store, given or Given()) as scan:
        show_notes(scan.notes, console)
        with _shown(console) as on_step:
            found = orient(scan, first=first, n_frames=n_frames, threads=threads, on_step=on_step)
        is_certain = found.orientation.is_certain
        settings = wanted_settings(found, scan, config, FIELDS) if is_certain else {}
        _table(found, scan, config).show(console)
    if json_file:
        write_summary(json_file, figures_of(found) | {"settings": _nested(settings)})
    if not is_certain:
        console.print(_undecided(found), soft_wrap=True, highlight=False)
        return UNDECIDED
    if write and kept and settings:
        change_file(write, settings, kept)
    _say_settings(settings, write, kept, console)
    return 0


def figures_of(found: OrientedScan) -> dict[str, Any]:
    """Returns what was found, by name; JSON can hold all of it."""
    orientation = found.orientation
    return {
        "frames": orientation.n_frames,
        "exchanged": orientation.turn.exchanged,
        "signs": list(orientation.turn.signs),
        "confidence": orientation.confidence,
        "sign_from": orientation.sign_from,
        "confidences": {in_words(turn): share for turn, share in orientation.confidences.items()},
        "unexplained": {in_words(turn): share for turn, share in orientation.unexplained.items()},
        "centre": list(found.centre),
        "assumed_centre": list(found.assumed_centre),
        "defocus_m": orientation.defocus_m(found.geometry),
    }


def change_file(path: Path, settings: Mapping[Key, Any], kept: Path) -> None:
    """Changes settings in a configuration, comments and layout staying, and keeps what it was as `kept`.

    Raises
    ------
    ConfigError
        If the file says them in a way that cannot be changed in place, or would be no configuration then.
    """
    before = path.read_bytes()
    text = before.decode("utf-8-sig")
    mark = before[: len(before) - len(text.encode())]  # that some editors begin a file with
    changed = with_settings(text, settings, path.name)
    with replacing(path) as temporary:
        temporary.write_bytes(mark + changed.encode())
        shutil.copymode(path, temporary)
        load_config(temporary)
        with replacing(kept) as copy:
            copy.write_bytes(before)
            shutil.copymode(path, copy)


def _is_configuration(source: str) -> bool:
    path = Path(source)
    return path.suffix in _YAML if path.exists() else source in recipes()


def _newest_scan(config: Config) -> Path:
    folder = config.save / "scans"
    newest = next(names_of_scans(folder, newest_first=True), None)
    if newest is None:
        raise ValueError(f"there is no scan in {folder}: record one with this configuration, or name a scan")
    return folder / newest


def _to_change(write: Path | None) -> Config | None:
    if write is None:
        return None
    if not write.is_file():
        raise ValueError(f"--write: there is no file {write}: wanted a configuration of yours")
    return load_config(write)


def _free_name(path: Path) -> Path:
    """Return a name beside `path` that nothing has."""
    beside = path.resolve()
    names = chain([f"{path.name}.before"], (f"{path.name}.before-{number}" for number in count(2)))
    return next(free for name in names if not (free := beside.with_name(name)).exists())


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[int, int], None]]:
    columns = TextColumn("trying"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda step, n_steps: progress.update(task, completed=step, total=n_steps)


def _table(found: OrientedScan, scan: RecordedScan, config: Config | None) -> FactsTable:
    orientation = found.orientation
    rows = FactsTable()
    first, last = found.frame_numbers
    rows.add_row("scan", escape(f"{scan.name}, {orientation.n_frames} frames, {first} to {last}"))
    rows.add_row("positions", f"{in_words(orientation.turn)}, confidence {orientation.confidence:.2f}")
    rows.add_row("", f"turned by 180° or not: {_SIGN_FROM[orientation.sign_from]}")
    if orientation.unexplained:
        own, other = (orientation.unexplained[turn] for turn in _best_two(orientation))
        rows.add_row(
            "", f"predicts frames with {own:.2f} of the error of their mean, the next best with {other:.2f}"
        )
    row, column = found.centre
    rows.add_row("beam", f"row {row:.1f}, column {column:.1f}; assumed at {found.assumed_centre}")
    if found.is_off_centre and (room := fits_around(found, config)) is not None:
        rows.add_row("", f"patterns about it have {room} pixels; as they are, the probe carries the tilt")
    if (defocus_m := orientation.defocus_m(found.geometry)) is not None:
        rows.add_row("defocus", readable(defocus_m, "m", digits=2))
    return rows


def _best_two(orientation: Orientation) -> tuple[Turn, Turn]:
    confidences = orientation.confidences
    best, second, *_ = sorted(CLASSES, key=confidences.__getitem__, reverse=True)
    return best, second


def _undecided(found: OrientedScan) -> str:
    if all(error > 1 for error in found.orientation.unexplained.values()):  # also where none was tried
        return (
            "no structure in these frames that overlapping ones share: take others, --first N; where none "
            "tell, look at the unit of the positions, and at how far the frames overlap"
        )
    return "these frames do not tell: take others, --first N, or more, --frames N"


def _say_settings(
    settings: Mapping[Key, Any], write: Path | None, kept: Path | None, console: Console
) -> None:
    if not settings:
        console.print("nothing to change", highlight=False)
        return
    if write:
        console.print(
            f"written to {write}; {kept} is what it was:", soft_wrap=True, markup=False, highlight=False
        )
    for section, values in _nested(settings).items():
        console.print(f"{section}:", markup=False, highlight=False)
        for key, value in values.items():
            console.print(f"  {key}: {as_yaml(value)}", markup=False, highlight=False, soft_wrap=True)


def _nested(settings: Mapping[Key, Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for (section, key), value in settings.items():
        nested.setdefault(section, {})[key] = value
    return nested
