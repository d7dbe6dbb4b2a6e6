import json
import logging

from stream.record import events
from stream.record.events import (
    FILE_NAME,
    MOST_EVENTS,
    Event,
    EventLog,
    EventReader,
    event_level,
    events_of,
)
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import make_scan

SCANS = (("0000-star", 100.0), ("0001-star", 200.0))


def test_events_are_read_while_they_are_written(tmp_path):
    clock = Clock(1000.0)
    log, read = EventLog(tmp_path, clock), EventReader(tmp_path)
    assert read() == []
    log.add("scan", "info", "0000-star begins")
    assert [event.text for event in read()] == ["0000-star begins"]
    clock.now += 2.5
    log.add("inference", "warning", "was killed by signal 9; starts again in 0.1 s")
    assert read()[1:] == [
        Event(
            time_s=1002.5,
            level="warning",
            source="inference",
            text="was killed by signal 9; starts again in 0.1 s",
        )
    ]
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["scan", "inference"]


def test_a_line_that_is_not_whole_yet_is_read_when_it_is_and_a_broken_one_is_passed_over(tmp_path):
    log, read = EventLog(tmp_path, Clock()), EventReader(tmp_path)
    log.add("scan", "info", "first")
    file = tmp_path / FILE_NAME
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:20])
    assert len(read()) == 1
    file.write_bytes(whole + whole[:20] + b"\n" + whole)
    assert [event.text for event in read()] == ["first", "first"]


def test_a_reader_keeps_the_newest(tmp_path):
    log, read = EventLog(tmp_path, Clock()), EventReader(tmp_path)
    for number in range(MOST_EVENTS + 5):
        log.add("scan", "info", str(number))
    assert [event.text for event in read()] == [str(5 + number) for number in range(MOST_EVENTS)]


def test_of_very_many_the_oldest_are_given_up_and_no_reader_misses_any(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "FILE_BYTES", 1000)
    scan = make_scan(tmp_path / "scans", run_id="r")
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    log, read = EventLog(run, Clock(10.0)), EventReader(run)
    for number in range(100):
        log.add("scan", "info", str(number))
        if number % 7 == 0:
            assert [event.text for event in read()] == [str(n) for n in range(number + 1)]
    files = list(run.iterdir())
    assert {path.name for path in files} == {FILE_NAME, f"{FILE_NAME}.1"}
    assert sum(path.stat().st_size for path in files) < 2200
    kept = [event.text for event in events_of(scan)]
    assert len(kept) > 10
    assert kept == [str(number) for number in range(100 - len(kept), 100)]


def test_levels_are_those_of_the_log():
    assert [event_level(level) for level in (logging.INFO, logging.WARNING, logging.ERROR)] == [
        "info",
        "warning",
        "error",
    ]


def test_a_scan_has_what_happened_in_its_time_and_what_names_it_later(tmp_path):
    first, second = (
        make_scan(tmp_path / "scans", name, run_id="r", started_s=time_s) for name, time_s in SCANS
    )
    clock = Clock()
    (tmp_path / "runs" / "r").mkdir(parents=True)
    log = EventLog(tmp_path / "runs" / "r", clock)
    for clock.now, source, text in (
        (90.0, "detector", "silent for 9 s"),
        (110.0, "inference", "was killed by signal 9; starts again in 0.1 s"),
        (205.0, "refinement", "was killed by signal 9; starts again in 0.1 s"),
        (210.0, "scan", "0000-star: incomplete: lost 4 frames"),
    ):
        log.add(source, "warning", text)
    assert [event.time_s for event in events_of(first)] == [110.0, 210.0]
    assert [event.time_s for event in events_of(second)] == [205.0, 210.0]
    assert events_of(make_scan(tmp_path / "scans", "0002-of-no-run")) == []
