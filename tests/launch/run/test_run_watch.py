from dataclasses import dataclass

import numpy as np
import pytest

from launch.config.run_file import new_run
from launch.page.status import sentence_of
from launch.results.halves import MEASURING, STORING
from launch.run.run_watch import RunWatch
from launch.run.stages import stages_of
from stream.record.handover import hand_over
from stream.record.probe import note_step, publish_probe
from stream.record.scan import State
from stream.wire.messages import FinishedScan, Progress, StageState
from tests.helpers.launch.runs import TRAINED_PROBE, make_config
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import close, infer, lose, make_scan, place, record

N = 100
PATCH = np.ones((16, 16), np.complex64)


@dataclass
class Process:
    """A process as its supervisor sees it: nothing is wrong with it unless the test says so."""

    trouble: tuple[str, str] | None = None
    silence_s: float = 0.0
    progress: Progress | None = None


class Bench:
    """A run that is looked at, of which the test is every stage."""

    def __init__(self, folder, **sections) -> None:
        network = {"weights": "demo"} if sections.pop("has_network", True) else {}
        config = make_config(folder, **{"network": network, "probe": TRAINED_PROBE} | sections)
        run = new_run(config, stages_of(config))
        self.folder, self.clock, self.scans, self.notes, self.named = folder, Clock(), [], [], []
        self.processes = {spec.name: Process() for spec in run.stages}
        self.announced = []
        self._watch = RunWatch(run, self._note, self.clock, announce=self.announced.append)

    def _note(self, source, level, text, scan):
        self.notes.append((source, level, text))
        self.named.append(scan)

    def begin(self, name="0000-star", announced=N):
        scan = make_scan(self.folder / "scans", name)
        scan.counters("subscriber", writable=True)["announced"] = announced
        self.scans.append(scan)
        return scan

    def look(self, after_s=0.25):
        self.clock.now += after_s
        return self._watch.look(self.scans, self.processes)

    def row(self, name, after_s=0.25):
        return next((row.level, row.text) for row in self.look(after_s).stages if row.name == name)

    def says(self, after_s=0.25):
        state = self.look(after_s)
        return state.level, state.text


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_before_a_scan_nothing_is_claimed(bench):
    assert bench.says() == ("waiting", "waiting for the first frame")
    assert bench.row("detector", after_s=60) == ("ok", "waiting for the first frame")
    bench.processes["inference"].trouble = "starting", "busy"
    assert bench.says() == ("waiting", "starting: inference")


def test_a_scan_that_had_begun_before_says_where_it_was_joined(bench):
    scan = bench.begin(announced=-1)
    scan.counters("subscriber", writable=True)["joined"] = 60
    record(scan, [60, 61])
    assert bench.row("detector") == ("ok", "receiving, 2 frames since it was joined at frame 60, have come")
    assert bench.notes == [("scan", "warning", "0000-star has begun before: joined at frame 60")]


def test_a_detector_that_stops_in_the_middle_is_silent_and_not_live(bench):
    scan = bench.begin()
    for number in range(40):
        record(scan, [number])
        place(scan, [number], [[0, 0]])
        infer(scan, [number], PATCH)
        bench.look(0.1)
    scan.counters("stitcher", writable=True)["version"] = 1
    assert bench.says() == ("live", "live")
    assert bench.row("detector") == ("ok", "receiving, 40 of 100 frames have come")
    assert bench.says(4.0)[0] == "stale"
    assert bench.row("detector", 0.75) == ("warning", "silent for 5 s, 40 of 100 frames have come")
    assert ("detector", "warning", "silent for 4 s, 40 of 100 frames have come") in bench.notes
    record(scan, [40])
    assert bench.row("detector")[0] == "ok"
    assert bench.notes[-1][:2] == ("detector", "info")


def test_a_slow_detector_is_silent_only_when_slower_than_itself(bench):
    scan = bench.begin()
    for number in range(5):
        record(scan, [number])
        bench.look(2.0)
    assert bench.row("detector", 7.0)[0] == "ok"
    assert bench.row("detector", 5.0)[0] == "warning"


def test_frames_that_all_came_are_no_silence(bench):
    scan = bench.begin()
    record(scan, np.arange(N))
    bench.look()
    assert bench.row("detector", 60) == ("ok", "all 100 frames have come")


def test_positions_that_do_not_come_are_missing(bench):
    scan = bench.begin()
    record(scan, np.arange(10))
    assert bench.row("positions") == ("ok", "arriving, 10 frames without one yet")
    assert bench.row("positions", 6.0) == ("warning", "missing for 10 frames, none has come for 6 s")
    scan.mark("positions", [3, 4], State.NO_POSITION)
    close(scan, "positions")
    assert bench.row("positions") == ("warning", "missing for 2 frames (3-4)")


def test_while_the_probe_is_sought_it_says_so_with_its_progress(tmp_path):
    bench = Bench(tmp_path, probe={"source": "data", "n_frames": 200})
    scan = bench.begin(announced=600)
    record(scan, np.arange(150))
    place(scan, np.arange(150), np.zeros((150, 2)))
    counters = scan.counters("probe", writable=True)
    counters["wanted"] = 200
    assert bench.says() == ("waiting", "finding the probe: 150 of 200 frames are here")
    record(scan, np.arange(150, 516))
    bench.look()
    note_step(counters, 11, 80)
    assert bench.says() == ("waiting", "finding the probe: step 12 of at most 80, 0 s")
    assert bench.row("inference") == ("ok", "waiting for the probe, 516 frames pending")
    note_step(counters, 40, 80)
    record(scan, np.arange(516, 530))
    place(scan, np.arange(530), np.zeros((530, 2)))
    assert bench.row("probe", 13.0) == ("busy", "finding the probe: step 41 of at most 80, 13 s")
    publish_probe(scan, np.ones((1, 16, 16), np.complex64))
    assert bench.row("probe") == ("done", "found")
    why = "inference working, 530 frames pending; refinement waiting for frames"
    assert bench.says() == ("waiting", f"530 frames recorded, no image yet: {why}")


def test_without_a_network_refinement_finds_the_probe_and_says_so(tmp_path):
    bench = Bench(tmp_path, has_network=False, probe={"source": "data"}, refinement={"first_frames": 32})
    scan = bench.begin()
    record(scan, np.arange(20))
    place(scan, np.arange(20), np.zeros((20, 2)))
    assert bench.row("probe") == ("busy", "finding the probe: 20 of 32 frames are here")
    close(scan, "subscriber", "positions")
    note_step(scan.counters("refinement", writable=True), 0, 38)
    assert bench.says() == ("waiting", "finding the probe: step 1 of at most 38, 0 s")
    assert bench.row("refinement") == ("ok", "waiting for the probe, 20 frames pending")


def test_frames_in_hand_of_which_none_is_done_are_a_stall(bench):
    scan = bench.begin()
    record(scan, np.arange(10))
    assert bench.row("inference") == ("ok", "working, 10 frames pending")
    assert bench.row("inference", 6.0) == ("warning", "stalled: 10 frames pending, none done for 6 s")
    infer(scan, np.arange(10), np.broadcast_to(PATCH, (10, 16, 16)))
    assert bench.row("inference") == ("ok", "keeps up")
    bench.look(60.0)
    record(scan, [10])
    assert bench.row("inference")[0] == "ok", "it has had this one for a moment only"


def test_a_process_that_died_or_does_not_answer_is_named(bench):
    scan = bench.begin()
    record(scan, [0])
    bench.processes["inference"].trouble = "restarting: was killed by signal 9", "warning"
    assert bench.says() == ("stale", "inference: restarting: was killed by signal 9")
    assert not [note for note in bench.notes if note[0] == "inference"], "the supervisor tells it itself"
    bench.processes["inference"].trouble = None
    bench.look()
    assert bench.notes[-1] == ("inference", "info", "working, 1 frame pending")
    bench.processes["recorder"].silence_s = 7.0
    assert bench.row("recorder") == ("warning", "no sign of life for 7 s")


def test_a_process_that_took_long_to_come_back_is_not_stalled_before_it_had_time_to_work(bench):
    scan = bench.begin()
    record(scan, np.arange(10))
    bench.look()
    bench.processes["inference"].trouble = "restarting: was killed by signal 9", "warning"
    for number in range(10, 40):
        record(scan, [number])
        assert bench.row("inference", 1.0) == ("warning", "restarting: was killed by signal 9")
    assert bench.says()[0] == "stale"
    bench.processes["inference"].trouble = None
    assert bench.row("inference") == ("ok", "working, 40 frames pending")
    assert bench.row("inference", 6.0) == ("warning", "stalled: 40 frames pending, none done for 6 s")


def test_what_stands_beside_the_way_of_the_data_has_its_row_and_not_the_sentence(bench):
    bench.processes["viewer"].trouble = "given up: left with exit status 1", "error"
    assert bench.row("page") == ("error", "given up: left with exit status 1")
    assert bench.says() == ("waiting", "waiting for the first frame")


def test_the_image_is_live_while_one_of_several_workers_does_the_work_of_another(tmp_path):
    bench = Bench(tmp_path, network={"weights": "demo", "workers": 2})
    state = StageState(name="inference-2", text="9 frames, 0.7 ms each", level="ok")
    bench.processes["inference-2"].progress = Progress(stage="inference-2", state=state)
    bench.processes["inference-1"].silence_s = 6.0
    assert bench.row("inference-1") == ("warning", "no sign of life for 6 s")
    assert bench.row("inference-2") == ("ok", "9 frames, 0.7 ms each")
    assert bench.says() == ("waiting", "waiting for the first frame")
    assert bench.notes == [("inference-1", "warning", "no sign of life for 6 s")]


def test_a_hold_is_said_with_its_name_and_explains_the_silence(tmp_path):
    policy = {"enabled": True, "address": "tcp://127.0.0.1:*", "limits": [[0, 9], [0, 9]], "max_dose": 1e6}
    bench = Bench(tmp_path, policy=policy)
    scan = bench.begin()
    record(scan, [0])
    place(scan, [0], [[0, 0]])
    infer(scan, [0], PATCH)
    scan.mark("refinement", [0], State.DONE)
    scan.mark("stitcher", [0], State.DONE)
    scan.counters("refinement", writable=True)["epochs_milli"] = 1_000_000
    bench.look()
    held = StageState(name="steering", text="held by anna", level="warning")
    bench.processes["policy"].progress = Progress(stage="policy", state=held)
    assert bench.says(8.0) == ("stale", "held by anna"), "which is why the detector is silent"
    assert bench.row("detector")[0] == "warning"
    assert not [note for note in bench.notes if note[0] == "steering"], "the policy tells it itself"


def test_frames_that_were_taken_while_the_stage_settled_are_not_missing(bench):
    scan = bench.begin()
    record(scan, np.arange(N))
    place(scan, np.arange(10, N), np.zeros((N - 10, 2)))
    scan.mark("positions", np.arange(10), State.SETTLING)
    assert bench.row("positions", after_s=60) == ("ok", "arriving")
    infer(scan, np.arange(N), np.broadcast_to(PATCH, (N, 16, 16)))
    scan.mark("stitcher", np.arange(10), State.SETTLING)
    scan.mark("stitcher", np.arange(10, N), State.DONE)
    scan.mark("refinement", np.arange(10, N), State.DONE)
    close(scan, "subscriber", "positions", "inference", "refinement", "stitcher", "recorder")
    told = "scan complete: all 100 frames but the 10 frames taken while settling are in the image"
    assert bench.says() == ("complete", told)


def test_the_end_is_told_epoch_by_epoch_and_with_what_is_missing(bench):
    scan = bench.begin()
    record(scan, np.arange(90))
    place(scan, np.arange(90), np.zeros((90, 2)))
    infer(scan, np.arange(90), np.broadcast_to(PATCH, (90, 16, 16)))
    lose(scan, np.arange(90, 100))
    refinement = scan.counters("refinement", writable=True)
    refinement["epochs_milli"], refinement["version"] = 3200, 1
    scan.mark("refinement", np.arange(90), State.DONE)
    scan.counters("stitcher", writable=True)["version"] = 1
    assert bench.row("refinement")[1].startswith("epoch 3.2 of ")
    close(scan, "subscriber", "positions", "inference")
    assert bench.row("detector") == ("ok", "waiting for the next scan")
    assert bench.says()[1].startswith("finishing: epoch 3.2 of ")
    scan.mark("stitcher", np.arange(90), State.DONE)
    close(scan, "refinement", "stitcher")
    told = "incomplete: fewer than announced: 10 frames (90-99); 90 of 100 frames are in the image"
    assert bench.says() == ("incomplete", f"{told}; writing results, 0 s")
    scan.counters("recorder", writable=True)["step"] = STORING
    assert bench.row("recorder") == ("busy", "results written, entering them in the store, 0 s")
    scan.counters("recorder", writable=True)["step"] = MEASURING
    assert bench.row("recorder") == ("busy", "results written, measuring the resolution, 0 s")
    close(scan, "recorder")
    assert bench.says() == ("incomplete", told)
    assert bench.notes == [
        ("scan", "info", "0000-star begins, 100 frames"),
        ("scan", "warning", f"0000-star: {told}"),
        ("recorder", "info", "results of 0000-star written"),
    ]
    assert bench.named == ["0000-star"] * 3


def test_a_stage_that_is_still_on_the_scan_before_names_it(bench):
    first = bench.begin()
    record(first, np.arange(N))
    close(first, "subscriber", "positions")
    second = bench.begin("0001-next")
    record(second, [0])
    assert bench.row("inference") == ("ok", "working, 100 frames pending (0000-star)")
    assert bench.says() == ("waiting", "1 frame recorded, the last frames of 0000-star come first")


def test_scans_being_finished_are_named_beside_the_running_one_and_announced_when_they_are(bench):
    scans = [bench.begin(name, announced=4) for name in ("0000-a", "0001-b", "0002-c")]
    for scan in scans:
        record(scan, np.arange(4))
        place(scan, np.arange(4), np.zeros((4, 2)))
        infer(scan, np.arange(4), PATCH)
        scan.mark("refinement", np.arange(4), State.DONE)
        scan.mark("stitcher", np.arange(4), State.DONE)
        close(scan, "subscriber", "positions", "inference")
        scan.counters("stitcher", writable=True)["version"] = 1
        scan.counters("refinement", writable=True)["epochs_milli"] = 12_000
    for scan in scans[:2]:
        for stage in ("refinement", "stitcher"):
            hand_over(scan, stage)
    bench.processes["finisher"].progress = Progress(
        stage="finisher", scan="0000-a", counts={"epoch_milli": 20_500, "updates": 82}
    )
    state = bench.look()
    assert [(scan.name, scan.text) for scan in state.finishing] == [
        ("0000-a", "epoch 20.5 of 40"),
        ("0001-b", "waiting, epoch 12.0 of 40"),
    ]
    assert state.scan == "0002-c"
    assert sentence_of(state) == (
        f"{state.text}; finishing 0000-a (epoch 20.5 of 40), 0001-b (waiting, epoch 12.0 of 40)"
    )
    assert bench.row("finisher") == ("ok", "epoch 20.5 of 40 (0000-a)")
    assert bench.row("refinement")[1] == "finishing: epoch 12.0 of 40", "of the running scan"

    close(scans[1], "refinement")
    assert bench.look().finishing[1].text == "stitching the final image"
    close(scans[1], "stitcher")
    assert bench.look().finishing[1].text == "writing results"
    assert bench.row("recorder") == ("busy", "writing results, 0 s (0001-b)")
    result = bench.folder / "results" / "0001-b.cxi"
    result.parent.mkdir()
    result.touch()
    close(scans[1], "recorder")
    assert [scan.name for scan in bench.look().finishing] == ["0000-a"]
    told = "scan complete: all 4 frames are in the image"
    assert bench.announced == [f"0001-b is finished: {told}; {result}"]
    assert bench.look().finished == (FinishedScan(name="0001-b", text=told, result=str(result)),)
    told = bench.notes.index(("recorder", "info", f"results of 0001-b written: {result}"))
    assert bench.named[told] == "0001-b", "not the newest"

    close(scans[2], "refinement", "stitcher", "recorder")
    level, text = bench.says()
    assert level == "complete", "the verdict is of the newest"
    assert text == "scan complete: all 4 frames are in the image"
    assert len(bench.announced) == len(bench.look().finished) == 1, "the last one was never handed over"

    bench.processes["finisher"].progress = Progress(stage="finisher", scan="0001-b", counts={"measuring": 1})
    assert bench.row("finisher", 60.0) == ("ok", "measuring the resolution, 0 s (0001-b)")
    assert bench.row("finisher", 9.0) == ("ok", "measuring the resolution, 9 s (0001-b)")


def test_a_scan_that_started_from_an_earlier_one_names_it_and_what_it_took(bench):
    scan = bench.begin("0001-b")
    record(scan, np.arange(4))
    place(scan, np.arange(4), np.zeros((4, 2)))
    infer(scan, np.arange(4), PATCH)
    scan.mark("refinement", np.arange(4), State.DONE)
    refinement = scan.counters("refinement", writable=True)
    refinement["epochs_milli"] = 3_200
    (scan.folder / "forerunner").mkdir()
    name = scan.folder / "forerunner" / "scan"
    name.write_text("")
    assert bench.row("refinement") == ("ok", "epoch 3.2 of 40"), "it was asked and there was none"
    name.write_text("0000-a")
    assert bench.row("refinement") == ("ok", "epoch 3.2 of 40, started from the probe of 0000-a")
    refinement["reused"] = 4
    assert bench.row("refinement") == ("ok", "epoch 3.2 of 40, started from the probe and object of 0000-a")


def test_a_scan_that_was_taken_up_is_told_of_by_the_stages_that_it_had(bench):
    stages = "subscriber", "positions", "refinement", "stitcher", "recorder"
    scan = make_scan(bench.folder / "scans", "0000-a", run_id="earlier", stages=stages)
    bench.scans.append(scan)
    record(scan, np.arange(4))
    place(scan, np.arange(4), np.zeros((4, 2)))
    scan.counters("refinement", writable=True)["epochs_milli"] = 12_000
    close(scan, "subscriber", "positions")
    for stage in ("refinement", "stitcher"):
        hand_over(scan, stage)
    (told,) = bench.look().finishing
    assert told.text == "waiting, epoch 12.0", "it has no network, and how many epochs it wants is not known"
    scan.mark("stitcher", np.arange(4), State.DONE)
    close(scan, "refinement", "stitcher")
    assert bench.row("recorder") == ("busy", "writing results, 0 s")


def test_a_finisher_that_makes_no_step_is_stalled(bench):
    scan = bench.begin()
    close(scan, "inference")
    hand_over(scan, "refinement")
    bench.begin("0001-b")
    assert all(row.name != "finisher" for row in bench.look().stages), "it has nothing to finish"
    told = Progress(stage="finisher", scan="0000-star", counts={"epoch_milli": 500, "updates": 50})
    bench.processes["finisher"].progress = told
    assert bench.row("finisher")[0] == "ok"
    assert bench.row("finisher", 6.0) == (
        "warning",
        "stalled: epoch 0.5 of 40 (0000-star), no step for 6 s",
    )
    assert bench.look().level != "stale", "the image follows the running scan all the same"
