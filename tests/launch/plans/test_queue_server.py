"""The plans in a real queue server, as the page shows it: its startup line, its item, its commands."""

import json
import shlex
import shutil

import numpy as np
import pytest

pytest.importorskip("bluesky_queueserver", reason="the extra 'dev' is not installed")

from tests.helpers.documentation import ROOT, blocks_of
from tests.helpers.launch.queue_server import policy_process, queue_server

BEAMLINE = """
import json, os
from bluesky import RunEngine
from tests.helpers.launch import plans as simulated

def kept(name, document):
    with open(os.environ["DOCUMENTS"], "a") as file:
        print(json.dumps([name, document], default=lambda array: array.tolist()), file=file)

RE = RunEngine()
RE.subscribe(kept)
detector, y, x = simulated.Detector(), simulated.Motor("y"), simulated.Motor("x")
camera, stage = simulated.Camera(), simulated.Stage()
"""
ADDRESS = "tcp://127.0.0.1:5811"
STARTUP, ITEM, COMMANDS = (
    block.text for block in blocks_of(ROOT / "docs" / "how-to" / "steer.md") if block.mark == "queue"
)


def told(documents):
    """For each run: its start, where its exposures were, the sources of its decisions, its exit status."""
    runs, streams = {}, {}
    for name, document in documents:
        if name == "start":
            runs[document["uid"]] = (document, [], [], [])
        elif name == "descriptor":
            streams[document["uid"]] = runs[document["run_start"]]
        elif name == "stop":
            runs[document["run_start"]][3].append(document["exit_status"])
        elif name == "event_page":
            columns = document["data"]
            streams[document["descriptor"]][1].extend(
                zip(columns["stage-y"], columns["stage-x"], strict=True)
            )
        elif "decision_source" in document["data"]:
            streams[document["descriptor"]][2].append(document["data"]["decision_source"])
        else:
            streams[document["descriptor"]][1].append([document["data"][motor] for motor in "yx"])
    return list(runs.values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_a_queue_server_runs_what_the_page_adds_to_its_queue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with policy_process() as address, queue_server(tmp_path, BEAMLINE + STARTUP) as server:
        exec(ITEM.replace(ADDRESS, address).replace("300", "40").replace("0.4", "1.0"), {})
        item = json.loads((tmp_path / "item.json").read_text())
        add, start = (shlex.split(line)[1:] for line in COMMANDS.splitlines())
        for part in (
            {},
            {"name": "adaptive_fly_ptycho", "args": [["camera"], "stage", address]},
        ):
            server(*add[:-1], json.dumps(item | part))
        server(*start)
        server.until("the queue", items_in_queue=0, items_in_history=2, manager_state="idle")
        stepped, flown = told(server.documents)
    for document, points, sources, ends in (stepped, flown):
        assert ends == ["success"], document
        assert sources == ["agent", "agent", "end"]
        assert len(points) == 40
        assert (np.abs(np.array(points) - 5) <= 5).all()
