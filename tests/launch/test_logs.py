"""What a run tells: lines for a person in a file of its own, lines of JSON for programs, bounded in size."""

import io
import json
import logging
from datetime import datetime
from pathlib import Path

import pytest

from launch import logs
from launch.child_process import BoundedFile
from launch.logs import JsonConsole, JsonLines, RunLog, as_json
from launch.results.summary import show_summary
from launch.run.progress import ProgressRecords, progress_on
from stream.record.events import EventReader
from stream.wire.messages import RunState
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import make_scan, record

NOON = datetime.fromisoformat("2026-11-30T12:00:00.250+00:00").timestamp()


def log_of(folder: Path, run_id: str = "r", **options) -> RunLog:
    run = folder / "runs" / run_id
    run.mkdir(parents=True, exist_ok=True)
    return RunLog(run, folder / "logs" / f"{run_id}.log", clock=Clock(NOON), **options)


def records(file: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_each_line_of_the_log_has_time_level_scan_and_stage(tmp_path):
    with log_of(tmp_path) as log:
        log.begin("abc", tmp_path)
        log.add("scan", "info", "0000-star begins", "0000-star")
        log.add("inference", "warning", "was killed by signal 9\nstarts again")
        log.add("scan", "info", "0001-star begins", "0001-star")
        log.add("recorder", "info", "results written", "0000-star")
        log.add("detector", "warning", "silent for 3 s")
    first, *lines = (tmp_path / "logs" / "r.log").read_text().splitlines()
    times = {datetime.fromisoformat(line[:29]).timestamp() for line in (first, *lines)}
    assert times == {NOON}, "local time, which says how far it is from that of others"
    assert first[29:].startswith(" INFO    - run: begins: ptychostream ")
    assert [line[29:] for line in lines] == [
        " INFO    0000-star scan: 0000-star begins",
        " WARNING 0000-star inference: was killed by signal 9",
        " WARNING 0000-star inference: starts again",
        " INFO    0001-star scan: 0001-star begins",
        " INFO    0000-star recorder: results written",
        " WARNING 0001-star detector: silent for 3 s",
        " INFO    0001-star run: ends",
    ]
    assert [event.scan for event in EventReader(tmp_path / "runs" / "r")()][1:3] == ["0000-star"] * 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no room"), "ERROR   - run: ends by ValueError: no room"),
        (KeyboardInterrupt(), "INFO    - run: ends, as it was asked to"),
    ],
)
def test_the_last_line_says_why_a_run_ended(tmp_path, error, told):
    with pytest.raises(type(error)), log_of(tmp_path):
        raise error
    assert (tmp_path / "logs" / "r.log").read_text().rstrip().endswith(told)


def test_a_run_writes_into_no_log_but_its_own(tmp_path):
    for run_id in ("a", "b"):
        with log_of(tmp_path, run_id) as log:
            log.add("run", "info", f"this is {run_id}")
    for run_id in ("a", "b"):
        first, last = (tmp_path / "logs" / f"{run_id}.log").read_text().splitlines()
        assert first.endswith(f"this is {run_id}")
        assert last.endswith("ends")


def test_a_log_does_not_grow_without_end_and_keeps_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LOG_BYTES", 1000)
    with log_of(tmp_path) as log:
        for number in range(200):
            log.add("scan", "info", str(number))
    files = sorted((tmp_path / "logs").iterdir(), reverse=True)
    assert [path.name for path in files] == ["r.log.2", "r.log.1", "r.log"]
    assert all(path.stat().st_size <= 1000 for path in files)
    kept = [line.rpartition(" ")[2] for path in files for line in path.read_text().splitlines()]
    assert kept == [*(str(number) for number in range(201 - len(kept), 200)), "ends"]


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path, capsys):
    file = BoundedFile(Path("/dev/full"), 1000, 1)
    file.handle(logging.makeLogRecord({"msg": "no room for this"}))
    file.close()
    assert capsys.readouterr() == ("", "")
    (tmp_path / "logs").write_text("a file where the folder should be")
    told = []
    with log_of(tmp_path, tell=told.append) as log:
        log.add("scan", "info", "begins")
    assert [event.text for event in told] == ["begins", "ends"]


def test_a_path_that_is_no_text_ends_no_run(tmp_path):
    with log_of(tmp_path) as log:
        log.add("scan", "error", "cannot write \udcff.cxi")
    assert "cannot write ?.cxi" in (tmp_path / "logs" / "r.log").read_text()


def test_all_that_a_command_says_is_an_object_a_line(tmp_path):
    file, scan = io.StringIO(), make_scan(tmp_path, "0000-star")
    record(scan, [0, 1, 2])
    console, clock = JsonConsole(file), Clock(50.0)
    line = progress_on(console)
    assert isinstance(line, ProgressRecords)
    line = ProgressRecords(console, clock)
    with line, log_of(tmp_path, tell=line.event) as log:
        console.print("live page   http://127.0.0.1:8010", soft_wrap=True)
        log.add("detector", "warning", 'refused "x"\nand more', scan.name)
        line.notice("subscriber", logging.WARNING, "which is told as an event")
        for _ in range(25):
            clock.now += 1.0
            line.show([scan], RunState(level="live", text="live"))
        logging.getLogger("launch.run").warning("control socket: %s", "no message")
        show_summary({"scan": scan.name, "is_complete": True, "epochs": float("nan"), "events": [1]}, console)
    logging.getLogger("launch.run").warning("not told any more")
    told = records(file)
    assert all(tuple(one) == ("time", "level", "stage", "scan", "message", "fields") for one in told)
    assert all(datetime.fromisoformat(one["time"]).utcoffset().total_seconds() == 0 for one in told)
    assert [(one["level"], one["stage"], one["scan"], one["message"]) for one in told] == [
        ("info", "run", "", "live page   http://127.0.0.1:8010"),
        ("warning", "detector", "0000-star", 'refused "x"\nand more'),
        *[("info", "run", "0000-star", "live")] * 3,
        ("warning", "run", "", "control socket: no message"),
        ("info", "run", "0000-star", "result is complete"),
        ("info", "run", "0000-star", "ends"),
    ]
    assert told[1]["time"] == "2026-11-30T12:00:00.250Z"
    assert told[2]["fields"]["state"] == "live"
    assert (told[2]["fields"]["recorded"], told[2]["fields"]["pending"]) == (3, 3)
    assert told[-2]["fields"] == {"scan": "0000-star", "is_complete": True, "epochs": None}


def test_a_line_that_is_printed_in_parts_is_one():
    file = io.StringIO()
    lines = JsonLines(file, Clock(NOON))
    for part in ("be", "gins\n\n  and", " ends\nrest"):
        lines.write(part)
    assert [one["message"] for one in records(file)] == ["begins", "and ends"]
    with as_json(lines):
        logging.getLogger("any").info("is not worth a line")
    assert len(records(file)) == 2
