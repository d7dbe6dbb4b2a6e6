"""What is said of the metrics is true: in the reference, on the dashboard, in the rules of alerts."""

import json
import os
import re

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from launch.page.server import FILES
from stream.record.run_state import ProcessState, write_state
from stream.record.scan import State
from stream.wire.messages import RunState, StageState
from stream.wire.sockets import STRANGERS
from tests.helpers.documentation import ROOT, blocks_of
from tests.helpers.launch.monitored import STAGES, asked, watched
from tests.helpers.stream.scans import make_scan, record

MONITORING = FILES / "monitoring"
REFERENCE = (ROOT / "docs" / "reference" / "metrics.md").read_text()
OF_PROMETHEUS = {"instance", "job", "le"}  # labels that are its own


@pytest.fixture(scope="module")
def scrape(tmp_path_factory):
    """The families of a scrape and the status, of a run with everything that can be told."""
    folder = tmp_path_factory.mktemp("run")
    scan = make_scan(folder / "scans", "0000-a", run_id="r", stages=STAGES)
    record(scan, [0])
    scan.column("worker", writable=True).write([0], 2)
    scan.mark("inference", [0], State.DONE)
    rows = (StageState(name="detector", text="receiving", level="ok"),)
    counts = {"clients": 1, **dict.fromkeys(STRANGERS, 0)}
    stitcher = ProcessState(name="stitcher", pid=os.getpid(), is_running=True, counts=counts)
    write_state(folder, RunState(level="live", text="live", stages=rows), [stitcher])
    with watched(folder) as url:
        text, status = asked(f"{url}/metrics")[2], json.loads(asked(f"{url}/status.json")[2])
    return list(text_string_to_metric_families(text)), status


@pytest.fixture(scope="module")
def samples(scrape):
    """By name of a sample, which values each of its labels has."""
    found = {}
    for sample in (sample for family in scrape[0] for sample in family.samples):
        labels = found.setdefault(sample.name, {})
        for name, value in sample.labels.items():
            labels.setdefault(name, set()).add(value)
    return found


def test_the_reference_has_every_metric_with_its_type_and_labels_and_no_other(scrape):
    rows = re.findall(r"^\| `(ptychostream_\w+)` \| (\w+) \| (.*?) ?\| .+ \|$", REFERENCE, re.MULTILINE)
    described = {(name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    there = set()
    for family in scrape[0]:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        there.add((name, family.type, frozenset(labels - {"le"})))
    assert described == there


def test_the_reference_has_every_field_of_the_status_and_no_other(scrape):
    section = REFERENCE.partition("## `/status.json`")[2]
    rows = re.findall(r"^\| (`.+?`) \| ", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(scrape[1])


def expressions():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['id']} {target['refId']}")
    yield pytest.param(dashboard["templating"]["list"][1]["query"], id="instance")
    for rule in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]:
        yield pytest.param(rule["expr"], id=rule["alert"])


@pytest.mark.parametrize("expression", expressions())
def test_dashboard_and_alerts_ask_for_what_is_there(expression, samples):
    names = re.findall(r"\b(ptychostream_\w+)(?:\{(.*?)\})?", expression)
    assert names
    for name, matchers in names:
        assert name in samples
        for label, operator, value in re.findall(r'(\w+)(=~|!=|!~|=)"(.*?)"', matchers):
            assert label in samples[name] or label in OF_PROMETHEUS
            if label not in OF_PROMETHEUS:
                wanted = value.split("|") if "~" in operator else [value]
                assert samples[name][label] >= set(wanted)
    by = re.findall(r"\bby \((.*?)\)", expression)
    known = OF_PROMETHEUS.union(*(samples[name] for name, _ in names))
    assert {label.strip() for labels in by for label in labels.split(",")} <= known


def test_every_alert_says_what_is_the_matter_by_labels_that_are_there(samples):
    for rule in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]:
        labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        (name, *_) = re.findall(r"ptychostream_\w+", rule["expr"])
        assert rule["annotations"]["summary"] and labels <= set(samples[name])


def test_panels_of_the_dashboard_have_a_place_of_their_own():
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24


def test_the_page_serves_both_files_and_what_is_shown_for_prometheus_is_yaml(tmp_path):
    with watched(tmp_path) as url:
        for name in ("dashboard.json", "alerts.yaml"):
            status, _, text = asked(f"{url}/web/monitoring/{name}")
            assert (status, text) == (200, (MONITORING / name).read_text())
    blocks = blocks_of(ROOT / "docs" / "how-to" / "monitor.md")
    shown = [yaml.safe_load(block.text) for block in blocks if block.kind == "prometheus"]
    targets = [job["static_configs"][0]["targets"] for it in shown for job in it["scrape_configs"]]
    assert targets == [["127.0.0.1:8010"], ["beamline-pc.facility.org:8010"]]
