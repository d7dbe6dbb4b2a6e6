"""Finished scans go when a new one begins, if the configuration says so; nothing else ever does."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.config.sections import Kept, kept
from launch.results.retention import Retention
from stream.files.in_use import in_use
from stream.record.handover import hand_over
from stream.record.scan import Scan, State
from tests.helpers.launch.runs import make_config
from tests.helpers.stream.scans import close, make_scan, record

RUN = "20260101T000000-0000"


class Save:
    """A folder of results with scans that are finished and exported, but for what a test takes back."""

    def __init__(self, folder: Path, keep: str, **options: bool) -> None:
        self.folder, self.scans, self.results = folder, folder / "scans", folder / "results"
        for part in (self.scans, self.results, folder / "runs" / RUN):
            part.mkdir(parents=True)
        (folder / "runs" / RUN / "run.json").write_text("{}")
        self.told: list[tuple[int, str]] = []
        self.retention = Retention(folder, keep, RUN, **options)

    def finished(self, name: str, run_id: str = RUN) -> Scan:
        """A scan of four frames that is over."""
        scan = make_scan(self.scans, name, run_id=run_id)
        record(scan, range(4))
        for stage in ("positions", "stitcher"):
            scan.mark(stage, range(4), State.DONE)
        for stage in ("subscriber", "positions", "stitcher", "recorder"):
            close(scan, stage)
        (self.results / f"{name}.cxi").write_bytes(b"result")
        (self.results / f"{name}.json").write_text("{}")
        return scan

    def begins(self, name: str, run_id: str = RUN) -> list[str]:
        """What stays when this scan has begun."""
        make_scan(self.scans, name, run_id=run_id)
        for _ in range(20):
            self.retention.turn(lambda level, text: self.told.append((level, text)))
        return sorted(path.name[-1] for path in self.scans.iterdir())


def test_nothing_is_removed_unless_the_configuration_says_so(tmp_path: Path) -> None:
    assert make_config(tmp_path).keep == ""
    save = Save(tmp_path, "")
    for index in range(3):
        save.finished(f"000{index}-{index}")
    assert save.begins("0003-3") == ["0", "1", "2", "3"]


def test_so_many_stay_and_the_oldest_beyond_go_when_a_new_scan_begins(tmp_path: Path) -> None:
    save = Save(tmp_path, "2 scans")
    for index in range(5):
        save.finished(f"000{index}-{index}", run_id="earlier")
    (tmp_path / "runs" / "earlier").mkdir()
    (tmp_path / "runs" / "earlier" / "run.json").touch()
    save.retention.turn(lambda level, text: pytest.fail("no scan has begun"))
    assert save.begins("0005-5") == ["3", "4", "5"]
    listed = [json.loads(line) for line in (tmp_path / "removed.jsonl").read_text().splitlines()]
    assert [(entry["scan"], entry["frames"]) for entry in listed] == [
        ("0000-0", 4),
        ("0001-1", 4),
        ("0002-2", 4),
    ]
    assert all(entry["bytes"] > 1000 and entry["run"] == "earlier" for entry in listed)
    level, text = save.told[0]
    assert level == logging.INFO
    assert text.startswith("0000-0 is removed, 4 frames, ")
    assert len([*save.results.glob("*.cxi")]) == 5, "results stay"
    assert not (tmp_path / ".removing").exists()


def test_a_size_is_kept_of_the_newest(tmp_path: Path) -> None:
    save = Save(tmp_path, "1 MB")
    scans = [save.finished(f"000{index}-{index}") for index in range(4)]
    size = sum(512 * path.lstat().st_blocks for path in scans[0].folder.rglob("*"))
    save.retention = Retention(tmp_path, f"{2.5 * size / 1e6:.3f} MB", RUN)
    assert save.begins("0004-4") == ["2", "3", "4"]


def without_recorder(save: Save, scan: Scan) -> None:
    scan.counters("recorder", writable=True)["closed"] = 0


def without_result(save: Save, scan: Scan) -> None:
    (save.results / f"{scan.name}.cxi").unlink()


def without_figures(save: Save, scan: Scan) -> None:
    (save.results / f"{scan.name}.json").unlink()


def handed_over(save: Save, scan: Scan) -> None:
    scan.counters("stitcher", writable=True)["closed"] = 0
    hand_over(scan, "stitcher")


def with_frames_left_out(save: Save, scan: Scan) -> None:
    scan.mark("stitcher", [1], State.NO_ROOM)


def of_nobody_we_know(save: Save, scan: Scan) -> None:
    shutil.rmtree(scan.folder)
    save.finished(scan.name, run_id="a run elsewhere")


def behind_a_link(save: Save, scan: Scan) -> None:
    scan.folder.rename(save.folder / scan.name)
    scan.folder.symlink_to(save.folder / scan.name)


def without_header(save: Save, scan: Scan) -> None:
    (scan.folder / "scan.json").unlink()


@pytest.mark.parametrize(
    "how",
    [
        without_recorder,
        without_result,
        without_figures,
        handed_over,
        with_frames_left_out,
        of_nobody_we_know,
        behind_a_link,
        without_header,
    ],
)
def test_one_that_is_not_finished_not_exported_or_not_ours_stays(
    tmp_path: Path, how: Callable[[Save, Scan], None]
) -> None:
    save = Save(tmp_path, "1 scan")
    how(save, save.finished("0000-0"))
    for index in (1, 2):
        save.finished(f"000{index}-{index}")
    (save.scans / "0000-mine").mkdir()  # of the user
    assert save.begins("0003-3") == ["0", "2", "3", "e"]


def test_one_that_somebody_reads_stays_and_goes_later(tmp_path: Path) -> None:
    save = Save(tmp_path, "1 scan")
    for index in range(3):
        save.finished(f"000{index}-{index}")
    with in_use(save.scans / "0000-0"):
        assert save.begins("0003-3") == ["0", "2", "3"]
    assert save.begins("0004-4") == ["2", "3", "4"]


def test_with_a_store_only_what_is_registered_goes(tmp_path: Path) -> None:
    save = Save(tmp_path, "1 scan", needs_store=True)
    for index in range(3):
        save.finished(f"000{index}-{index}")
    (save.results / "0001-1.json").write_text('{"uid": "abc"}')
    (save.results / "0002-2.json").write_text('{"uid": "def"}')
    assert save.begins("0003-3") == ["0", "2", "3"]


def test_those_that_cannot_be_removed_are_said_and_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Save(tmp_path, "1 scan")
    for index in range(3):
        save.finished(f"000{index}-{index}")

    def refuse(path: Path, target: Path) -> Path:
        raise PermissionError(13, "not yours", str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    assert save.begins("0003-3") == ["0", "1", "2", "3"]
    assert [(level, text.partition(":")[0]) for level, text in save.told] == [
        (logging.WARNING, f"000{index}-{index} cannot be removed") for index in (0, 1)
    ]
    assert not (tmp_path / "removed.jsonl").exists()


def test_what_stays_is_said_as_a_number_of_scans_or_a_size() -> None:
    assert kept("20 scans") == Kept(n_scans=20)
    assert kept("1.5 TB") == Kept(n_bytes=1.5e12)
    for wrong in ("20", "scans", "0 scans", "-1 GB", "500 GiB", "20 scans | 500 GB"):
        with pytest.raises(ValueError, match="'20 scans', or a size, '500 GB'"):
            kept(wrong)
