"""What programs that watch a run are answered, over real connections and read by Prometheus' own library."""

import json
import os

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from launch.config.sections import ViewerConfig
from stream.record.account import account, frame_counts
from stream.record.run_state import ProcessState, write_state
from stream.record.scan import Scan, State
from stream.wire.messages import RunState, StageState
from tests.helpers.launch.monitored import NOBODY, STAGES, asked, scraped, watched
from tests.helpers.launch.pages import viewer
from tests.helpers.stream.scans import lose, make_scan, place, record

ROWS = (
    StageState(name="detector", text="receiving", level="ok"),
    StageState(name="inference", text="restarting: was killed by signal 9", level="warning"),
    StageState(name="stitcher", text="version 3 of the image", level="ok"),
)
STALE = RunState(scan="0000-a", level="stale", text="inference: restarting", stages=ROWS)
KNOCKED = {"wrong_key": 2, "no_handshake": 7}
PROCESSES = (
    ProcessState(name="subscriber", pid=0, is_running=True, counts={"refused": 4}),
    ProcessState(name="inference", pid=0, is_running=False, n_restarts=2, counts={"clients": 9}),
    ProcessState(
        name="stitcher", pid=os.getpid(), is_running=True, heard_s=1e9, counts={"clients": 3} | KNOCKED
    ),
)


@pytest.fixture
def scan(tmp_path):
    scan = make_scan(tmp_path / "scans", "0000-a", run_id="r", stages=STAGES)
    record(scan, np.arange(10))
    lose(scan, [10])
    place(scan, np.arange(6), np.zeros((6, 2)))
    scan.mark("positions", [6], State.NO_POSITION)
    scan.column("inferred_s", writable=True).write(np.arange(4), 1.2)
    scan.mark("inference", np.arange(4), State.DONE)
    scan.counters("subscriber", writable=True)["rejected"] = 6
    scan.counters("positions", writable=True)["conflicts"] = 1
    write_state(tmp_path, STALE, PROCESSES)
    return scan


def test_metrics_say_what_ledger_page_and_supervisor_say(scan, tmp_path):
    with watched(tmp_path) as url:
        status, headers, text = asked(f"{url}/metrics")
    found = scraped(text)
    known = {stage: account(Scan(scan.folder), stage) for stage in ("subscriber", "positions", "inference")}
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
    assert found["frames_total", "subscriber", "done"] == known["subscriber"].recorded == 10
    assert found["frames_total", "subscriber", "lost"] == known["subscriber"].lost == 1
    assert found["frames_total", "inference", "done"] == known["inference"].done == 4
    assert found["frames_total", "positions", "no_position"] == known["positions"].dropped["no_position"] == 1
    for stage in ("positions", "inference"):
        assert found["frames_pending", stage] == known[stage].pending
    assert (found["backlog_frames", "inference"], found["backlog_frames", "stitcher"]) == (6, 4)
    assert found["latency_seconds_count", "inference"] == 4
    assert found["latency_seconds_bucket", "0.25", "inference"] == 4
    assert (found["keeping_up",], found["stage_keeping_up", "inference"]) == (0, 0)
    assert (found["stage_keeping_up", "stitcher"], found["stage_level", "warning", "inference"]) == (1, 1)
    assert (found["run_level", "stale"], found["run_level", "live"]) == (1, 0)
    assert (found["process_restarts_total", "inference"], found["process_up", "inference"]) == (2, 0)
    assert ("process_resident_memory_bytes", "inference") not in found
    assert found["process_resident_memory_bytes", "stitcher"] > 1e6
    assert found["process_heard_timestamp_seconds", "stitcher"] == 1e9
    assert (found["clients", "live"], found["clients", "page"]) == (3, 0)
    assert (found["ignored_total", "rejected", "subscriber"], found["series_refused_total",]) == (6, 4)
    assert (
        found["strangers_total", "live", "wrong_key"],
        found["strangers_total", "live", "no_handshake"],
    ) == (2, 7)
    assert not [key for key in found if key[0] == "strangers_total" and key[1] != "live"], "nobody has told"
    assert 0 < found["disk_free_bytes",] < found["disk_size_bytes",]


def test_the_status_says_the_same_as_json(scan, tmp_path):
    with watched(tmp_path) as url:
        status, headers, text = asked(f"{url}/status.json")
    told = json.loads(text)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert (told["run_id"], told["level"], told["text"]) == ("r", "stale", "inference: restarting")
    assert (told["keeps_up"], told["behind"]) == (False, {"inference": "restarting: was killed by signal 9"})
    assert (told["scan"], told["counts"]) == ("0000-a", frame_counts(Scan(scan.folder)))
    assert sum(told["shares"].values()) == told["counts"]["expected"]
    assert (told["frames"]["inference"]["done"], told["frames"]["stitcher"]["backlog"]) == (4, 4)
    assert (told["ignored"]["positions"]["conflicts"], told["scans"]["refused"]) == (1, 4)
    assert told["latency"]["inference"]["up_to_s"]["+Inf"] == 4
    assert [row["name"] for row in told["stages"]] == ["detector", "inference", "stitcher"]
    processes = {process["name"]: process for process in told["processes"]}
    assert (processes["inference"]["restarts"], processes["inference"]["heard_s"]) == (2, None)
    assert processes["supervisor"]["is_running"] and processes["supervisor"]["resident_bytes"] > 1e6
    assert told["disk"]["folder"] == str(tmp_path)
    assert told["strangers"] == {"live": KNOCKED}


def test_a_run_in_which_nothing_is_in_trouble_keeps_up(scan, tmp_path):
    write_state(tmp_path, RunState(level="waiting", text="no image yet", stages=(ROWS[0], ROWS[2])))
    with watched(tmp_path) as url:
        found = scraped(asked(f"{url}/metrics")[2])
    assert (found["keeping_up",], found["run_level", "waiting"]) == (1, 1)


def test_who_asks_for_openmetrics_gets_the_same_in_it(scan, tmp_path):
    with watched(tmp_path) as url:
        plain = scraped(asked(f"{url}/metrics")[2])
        _, headers, text = asked(f"{url}/metrics", Accept="application/openmetrics-text; version=1.0.0")
    frames = {key: value for key, value in plain.items() if key[0] == "frames_total"}
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert frames and frames.items() <= scraped(text, openmetrics).items()


def test_labels_are_few_and_no_scan_is_one(scan, tmp_path):
    with watched(tmp_path) as url:
        families = text_string_to_metric_families(asked(f"{url}/metrics")[2])
    samples = [sample for family in families for sample in family.samples]
    assert not any(scan.name in sample.labels.values() for sample in samples)
    assert 100 < len(samples) < 300


TOKEN = "a-token-of-more-than-sixteen-letters"
BEARING = {"Authorization": f"Bearer {TOKEN}"}
OPEN = {"host": "0.0.0.0", "insecure": True}


@pytest.fixture
def token(tmp_path):
    (tmp_path / "metrics.key").write_text(f"{TOKEN}\n")
    return {"metrics_token": tmp_path / "metrics.key"}


def status_of(url, **headers):
    """Of both addresses, which are guarded alike."""
    (status,) = {asked(f"{url}/{path}", **headers)[0] for path in ("metrics", "status.json")}
    return status


@pytest.mark.parametrize("settings", [{}, OPEN], ids=["loopback", "network"])
def test_where_a_token_is_set_only_who_bears_it_is_answered(settings, token, tmp_path):
    with watched(tmp_path, **settings, **token) as url:
        assert status_of(url, **BEARING) == status_of(url, Authorization=f"bearer {TOKEN}") == 200
        for wrong in ("Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer \xe9"):
            assert status_of(url, Authorization=wrong) == 401, wrong
        status, headers, _ = asked(f"{url}/metrics")
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("settings", [OPEN, {"hosts": ["proxy.example"]}], ids=["network", "proxy"])
def test_where_other_machines_reach_the_page_nobody_is_answered_without_a_token(settings, tmp_path):
    with watched(tmp_path, **settings) as url:
        status, _, text = asked(f"{url}/metrics")
        assert (status, status_of(url, **BEARING), asked(f"{url}/")[0]) == (403, 403, 200)
    assert "`viewer.metrics_token` names its file" in text


def test_a_foreign_name_and_a_page_of_another_site_are_refused_with_the_right_token(token, tmp_path):
    with watched(tmp_path, **token) as url:
        assert status_of(url, **BEARING, Host="rebound.example") == 403
        assert status_of(url, **BEARING, Origin="https://elsewhere.example") == 403


@pytest.mark.parametrize("content", ["", "short", "two words of some length", "sch\xf6ne-lange-umlaute-hier"])
def test_a_file_that_holds_no_token_is_refused_by_its_name(content, tmp_path):
    (tmp_path / "metrics.key").write_text(content)
    with pytest.raises(
        ValueError, match=r"viewer.metrics_token: .*metrics.key (holds no token|cannot be read)"
    ):
        ViewerConfig(metrics_token=tmp_path / "metrics.key").read_token()


def test_a_page_without_a_run_beside_it_has_neither():
    with viewer(NOBODY) as url:
        assert status_of(url) == 404
