"""`ptychostream ledger`: the same figures for people, as CSV and as JSON, of a scan that nobody touches."""

import csv
import json
import os
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from launch import cli
from launch.commands.ledger import ledger, scan_folder
from launch.results.summary import summarise
from stream.record.columns import DamagedScanError
from stream.record.scan import Scan, State
from tests.helpers.stream.scans import close, lose, make_scan, place, record

STAGES = ("subscriber", "positions", "inference", "stitcher")


def make_recorded(save: Path, name: str = "0000-star") -> Scan:
    """A scan of which some frames were lost, some have no position, and some are not in the image yet."""
    scan = make_scan(save / "scans", name, stages=STAGES)
    here = np.setdiff1d(np.arange(100), np.arange(40, 50))
    record(scan, here)
    lose(scan, np.arange(40, 50))
    without = np.array([0, 1, 2, 61])
    placed = np.setdiff1d(here, without)
    place(scan, placed, np.zeros((len(placed), 2)))
    scan.mark("positions", without, State.NO_POSITION)
    scan.column("inferred_s", writable=True).write(here, 1.02)
    scan.mark("inference", here, State.DONE)
    scan.mark("stitcher", without, State.NO_POSITION)
    scan.column("mosaicked_s", writable=True).write(placed[:80], 1.25)
    scan.mark("stitcher", placed[:80], State.DONE)
    close(scan, "subscriber", "positions", "inference")
    return scan


def shown(source: Path | None, **options) -> list[str]:
    output = StringIO()
    assert ledger(source, console=Console(file=output, width=80), **options) == 0
    return output.getvalue().splitlines()


def test_people_see_counts_that_add_up_and_which_frames_are_where(tmp_path):
    make_recorded(tmp_path)
    assert shown(tmp_path) == [
        "0000-star: 100 expected = 90 recorded + 10 lost",
        "not closed by stitcher",
        "",
        "of 90 recorded  done  pending  dropped        median ms     99 % ms",
        "subscriber      90    0        0              0.0           0.0",
        "positions       86    0        4 no position  not recorded",
        "inference       90    0        0              20.0          20.0",
        "stitcher        80    6        4 no position  250.0         250.0",
        "ms from the end of the exposure until the stage was done with the frame",
        "",
        "not done by  why          frames",
        "subscriber   lost         10 frames: 40-49",
        "positions    no position  4 frames: 0-2, 61",
        "stitcher     pending      6 frames: 94-99",
        "stitcher     no position  4 frames: 0-2, 61",
    ]


def test_files_hold_the_figures_of_the_summary_and_all_numbers(tmp_path):
    scan = make_recorded(tmp_path)
    table, figures = tmp_path / "frames.csv", tmp_path / "frames.json"
    shown(scan.folder, csv_file=table, json_file=figures)
    it, summary = json.loads(figures.read_text()), summarise(scan)
    assert (it["expected"], it["recorded"], it["lost"], it["awaited"]) == (100, 90, 10, 0)
    assert it["open_stages"] == ["stitcher"]
    stages = {stage["stage"]: stage for stage in it["stages"]}
    assert tuple(stages) == STAGES
    assert it["incomplete"] == summary["incomplete"]
    assert it["recorded"] == summary["frames_recorded"]
    assert stages["stitcher"]["done"] == summary["frames_mosaicked"]
    assert stages["stitcher"]["time_ms_p99"] == summary["time_to_image_ms_p99"]
    assert stages["positions"]["dropped"] == {"no_position": summary["frames_without_position"]}
    assert stages["positions"]["time_ms_p50"] is None
    assert stages["stitcher"]["not_done"]["no_position"] == {"n_frames": 4, "frames": [[0, 2], [61, 61]]}
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["stage"], row["what"], row["n_frames"], row["frames"]) for row in rows[-3:]] == [
        ("stitcher", "done", "80", ""),
        ("stitcher", "pending", "6", "94-99"),
        ("stitcher", "no_position", "4", "0-2, 61"),
    ]
    assert {row["scan"] for row in rows} == {"0000-star"}
    assert rows[-3]["time_ms_p50"] == "250.000"


def test_of_several_workers_each_is_named_with_what_it_has_done(tmp_path):
    scan = make_recorded(tmp_path)
    for worker, numbers in ((2, np.arange(30)), (11, np.arange(50, 100))):
        scan.column("worker", writable=True).write(numbers, worker)
    scan.column("inferred_s", writable=True).write(np.arange(50, 100), 1.5)
    assert shown(tmp_path)[6:9] == [
        "inference       90    0        0              500.0         500.0",
        "  inference-2   30                            20.0          20.0",
        "  inference-11  50                            500.0         500.0",
    ]
    table, figures = tmp_path / "frames.csv", tmp_path / "frames.json"
    shown(scan.folder, csv_file=table, json_file=figures)
    workers = {stage["stage"]: stage["workers"] for stage in json.loads(figures.read_text())["stages"]}
    assert workers["subscriber"] == {}
    assert {name: (own["done"], round(own["time_ms_p50"])) for name, own in workers["inference"].items()} == {
        "inference-2": (30, 20),
        "inference-11": (50, 500),
    }
    rows = [row for row in csv.DictReader(table.read_text().splitlines()) if "inference-" in row["stage"]]
    assert [(row["stage"], row["what"], row["n_frames"], row["time_ms_p50"]) for row in rows] == [
        ("inference-2", "done", "30", "20.000"),
        ("inference-11", "done", "50", "500.000"),
    ]


def test_the_screen_names_some_ranges_and_says_how_many_frames_the_others_hold(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, np.arange(0, 100, 2))
    lose(scan, np.arange(1, 100, 2))
    assert shown(scan.folder)[-2] == "subscriber   lost     50 frames: 1, 3, 5, 7, 9, 11, 13, 15 and 42 more"


def test_a_scan_that_grows_is_looked_at_without_a_trace(tmp_path):
    scan = make_recorded(tmp_path)

    def traces() -> dict[str, tuple[int, bytes]]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = traces()
    for path in scan.folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        first = shown(tmp_path)
    finally:
        for path in scan.folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert traces() == before
    record(scan, [100])
    assert shown(tmp_path)[0] == "0000-star: 101 expected = 91 recorded + 10 lost" != first[0]


def test_a_folder_stands_for_its_newest_scan_and_nothing_for_the_newest_of_where_runs_save(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no scan in \./recordings or \./demo: name the folder of a scan"):
        scan_folder(None)
    old, new = (make_scan(tmp_path / "demo" / "scans", name) for name in ("9999-a", "10000-b"))
    assert scan_folder(tmp_path / "demo") == scan_folder(tmp_path / "demo" / "scans") == new.folder
    assert scan_folder(None).resolve() == new.folder
    late = make_scan(tmp_path / "recordings" / "scans", "0000-c")
    os.utime(late.folder / "scan.json", (2e9, 2e9))
    assert scan_folder(None).resolve() == late.folder
    monkeypatch.chdir(old.folder)
    assert scan_folder(Path()) == old.folder


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "is not there: wanted the folder of a scan"),
        (lambda path: path.mkdir(), "holds no scan yet"),
        (lambda path: path.write_bytes(b"cxi"), "is a file: a ledger lies in the folder of a scan"),
    ],
)
def test_what_is_no_scan_is_named(tmp_path, make, told):
    make(tmp_path / "it")
    with pytest.raises(ValueError, match=told):
        ledger(tmp_path / "it")


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("ledger/inference/000000.bin", b"", "000000.bin has 0 bytes, not 4096"),
        (
            "ledger/inference/000000.bin",
            b"\x09" * 4096,
            "inference has the byte 9 for frame 0, wanted 0 to 7",
        ),
        ("ledger/stitcher/column.json", b"{", "column.json is damaged"),
        ("counters/subscriber", b"\xff" * 8, "subscriber has 8 bytes, not 512"),
        ("scan.json", b"\x00", "scan.json is damaged"),
    ],
)
def test_a_damaged_scan_is_one_sentence_that_names_the_file(
    tmp_path, monkeypatch, capsys, file, content, told
):
    scan = make_recorded(tmp_path)
    (scan.folder / file).write_bytes(content)
    with pytest.raises(DamagedScanError, match=told):
        ledger(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ptychostream", "ledger", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    error = capsys.readouterr().err
    assert (end.value.code, error.count("\n")) == (cli.USER_MISTAKE, 1)
    assert told in error


def test_no_file_that_exists_is_lost(tmp_path):
    make_recorded(tmp_path)
    file = tmp_path / "frames.csv"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        ledger(tmp_path, csv_file=file)
    assert file.read_text() == "mine"
    shown(tmp_path, csv_file=file, overwrite=True)
    assert file.read_text().startswith("scan,stage,what,")
    with pytest.raises(ValueError, match="would replace what is read"):
        ledger(tmp_path, json_file=tmp_path / "scans" / "0000-star" / "scan.json", overwrite=True)
