"""What an earlier run has left without results, and the run that ends it."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from launch.commands import run as run_command
from launch.page.scans.records import ScanRecords
from launch.run import supervisor as supervisor_module
from launch.run.supervisor import Supervisor
from stream.record.events import events_of
from stream.record.handover import awaits_finishing, hand_over, runs_of, take_up
from stream.record.scan import Scan
from tests.helpers.launch.runs import TRAINED_PROBE, make_config, make_run
from tests.helpers.stream.scans import close, make_scan, place, record


def left_by_an_earlier_run(scans: Path, number: int, *closed: str, config_hash: str = "") -> Scan:
    scan = make_scan(scans, f"{number:04d}-left", run_id="earlier", config_hash=config_hash)
    record(scan, [0, 1])
    close(scan, "subscriber", *closed)
    return scan


def test_the_scan_that_an_earlier_run_left_open_counts_for_the_run_that_ends_it(run_folder):
    run = make_run(run_folder, "first")
    config_hash = run.context().config_hash
    left_by_an_earlier_run(run.scans, 0, "first", config_hash=config_hash)
    left_by_an_earlier_run(run.scans, 1, config_hash=config_hash)  # the finisher's
    left = left_by_an_earlier_run(run.scans, 2, config_hash=config_hash)
    with Supervisor(run) as supervisor:
        assert [scan.name for scan in supervisor.scans()] == [left.name]
        supervisor.poll()
        with pytest.raises(TimeoutError, match="0 of 0 series complete"):
            supervisor.wait_for_series(0, timeout_s=0.0)
        close(left, "first")
        supervisor.wait_for_series(1, timeout_s=0.0)
    assert runs_of(left) == ("earlier", run.run_id)
    (event,) = [event for event in events_of(left) if event.source == "scan"]
    assert event.text == "0002-left goes on, 2 frames recorded by an earlier run"


def test_a_scan_of_another_configuration_is_not_taken_for_a_series_of_the_run(run_folder):
    run = make_run(run_folder, "first")
    left_by_an_earlier_run(run.scans, 0, config_hash="another")
    with Supervisor(run) as supervisor:
        assert supervisor.scans() == []


def test_a_run_that_resumes_waits_for_all_that_is_left_and_for_what_begins_meanwhile(run_folder):
    run = make_run(run_folder, "first")
    left = left_by_an_earlier_run(run.scans, 0)
    hand_over(left, "stitcher")
    with Supervisor(run.model_copy(update={"resumes": True})) as supervisor:
        begun = make_scan(run.scans, "0001-begun", run_id=run.run_id)
        assert [scan.name for scan in supervisor.scans()] == [left.name, begun.name]
        close(left, "first", "stitcher")
        with pytest.raises(TimeoutError):
            supervisor.wait_for_series(0, timeout_s=0.0)
        close(begun, "first")
        supervisor.wait_for_series(0, timeout_s=0.0)


def test_scans_with_results_are_looked_at_by_the_next_run_alone_and_one_at_a_time(run_folder, monkeypatch):
    def awaits(scan):
        n_open.append(len(list(Path("/proc/self/fd").iterdir())))
        return awaits_finishing(scan)

    n_open = []
    monkeypatch.setattr(supervisor_module, "awaits_finishing", awaits)
    for number in range(40):
        left_by_an_earlier_run(run_folder / "scans", number, "first", "positions").close()
    for run_id, n_looked_at in (("first", 40), ("second", 16)):
        run = make_run(run_folder, "first").model_copy(update={"run_id": run_id})
        n_open.clear()
        with Supervisor(run) as supervisor:
            assert supervisor.scans() == []
        assert len(n_open) == n_looked_at
        assert max(n_open) - min(n_open) < 10


@pytest.mark.parametrize("boot", ["", "this", "another"])
def test_what_was_made_of_a_scan_is_believed_unless_the_computer_was_started_again(run_folder, boot):
    run = make_run(run_folder, "first").model_copy(update={"boot": "this"})
    earlier = run.model_copy(
        update={"run_id": "earlier", "folder": run.folder.parent / "earlier", "boot": boot}
    )
    earlier.write()
    left = left_by_an_earlier_run(run.scans, 0)
    place(left, [0, 1], [[0, 0], [1, 1]])
    with Supervisor(run, on_notice=lambda *notice: None):
        assert Scan(left.folder).states("positions").any() == (boot != "another")
        notes = [event.text for event in events_of(left)]
    assert any("the computer was switched off" in text for text in notes) == (boot == "another")


def test_the_page_says_of_a_scan_that_was_taken_up_that_it_goes_on(tmp_path):
    left = left_by_an_earlier_run(tmp_path / "scans", 0)
    records = ScanRecords(tmp_path, "later")
    assert not records.read(left.name).is_going_on
    take_up(left, "between")
    take_up(left, "later")
    assert records.read(left.name).is_going_on


def test_where_nothing_is_left_there_is_nothing_to_resume(run_folder, monkeypatch):
    monkeypatch.setattr(run_command, "resolve", lambda config, known: make_run(run_folder, "refusing"))
    left_by_an_earlier_run(run_folder / "scans", 0, "refusing")
    figures, console = run_folder / "figures.json", Console(record=True)
    config = make_config(run_folder, probe=TRAINED_PROBE)
    assert run_command.run(config, resumes=True, json_file=figures, console=console) == 0
    assert f"nothing to resume: every scan in {run_folder} has its results" in console.export_text()
    assert json.loads(figures.read_text())["scans"] == []
