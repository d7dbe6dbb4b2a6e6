import io
from itertools import starmap

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from launch.cli import app
from launch.commands.replay_decisions import replay_decisions
from launch.commands.steer import steer
from stream.documents.codec import append_records, as_record
from stream.steering.control_client import SteeringClient
from stream.steering.policy_client import PolicyClient
from stream.wire.codec import ProtocolError
from tests.helpers.launch.plans import answering
from tests.helpers.stream.decisions import SCAN, conversation, record_of
from tests.helpers.stream.policies import LIMITS, policy

LOW, HIGH = LIMITS[0]


def shown(client, *words):
    screen = Console(file=io.StringIO(), width=200)
    assert steer(client, words[0], words[1:], screen) == 0
    return screen.file.getvalue()


@pytest.fixture
def steered():
    """A person's client of a policy that answers a plan, and the plan's side."""
    with answering(steers=policy(max_dose=1e4)) as address:
        client = PolicyClient(address)
        client.ask(np.zeros((0, 2)), 5)
        while (advice := client.poll()) is None:
            pass
        client.tell("agent", "survey: not seen everywhere", 5, 31)
        yield SteeringClient(address), client, advice
        client.close()


def test_a_terminal_shows_the_same_facts_as_the_page(steered):
    person, _, _ = steered
    text = shown(person, "status")
    for fact in (
        "agent: survey: not seen everywhere",
        "0 measured, 31 left, 5 recommended",
        "1e+04 allowed",
        "everywhere within the limits",
        "um",
    ):
        assert fact in text


def test_a_person_at_a_terminal_holds_resumes_restricts_and_stops(steered, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "lab")
    person, client, _ = steered
    assert "held" in shown(person, "hold").splitlines()[0]
    assert "held" not in shown(person, "resume").splitlines()[0]
    assert f"y {LOW:.6g} to {HIGH / 2:.6g}" in shown(person, "region", str(LOW), str(HIGH / 2), "0", "3")
    assert "everywhere within the limits" in shown(person, "region", "clear")
    assert "stopped by lab" in shown(person, "stop")
    while client.heard.number < 5:
        client.poll()
    assert [control.deed for control in client.heard.said] == ["hold", "resume", "region", "clear", "stop"]
    with pytest.raises(ProtocolError, match="hold: the run was stopped by lab"):
        shown(person, "hold")


@pytest.mark.parametrize(
    "words", [("hld",), ("hold", "now"), ("region", "1", "2"), ("region", "a", "b", "c", "d"), ("clear",)]
)
def test_what_is_no_action_is_refused_before_anything_is_sent(words):
    with pytest.raises(ValueError, match="wanted"):
        steer(SteeringClient("tcp://127.0.0.1:9"), words[0], words[1:])


def test_an_open_address_needs_keys_or_a_decision():
    done = CliRunner().invoke(app, ["steer", "tcp://192.0.2.1:5811", "hold"])
    assert "can be reached from other machines" in str(done.exception)


def run_documents(answers):
    names = ("source", "sequence", "map_hash")
    yield "start", {"uid": "s", "time": 0.0}
    yield "descriptor", {"uid": "d", "name": "decisions", "run_start": "s"}
    for answer, _ in answers:
        values = ("agent", answer.sequence, answer.map_hash)
        data = {f"decision_{name}": value for name, value in zip(names, values, strict=True)}
        yield "event", {"descriptor": "d", "data": data}


def test_replayed_decisions_are_the_same_and_none_is_missing(tmp_path):
    answers = conversation(tmp_path)
    folder, screen = tmp_path / "scans" / SCAN, Console(file=io.StringIO(), width=200)
    append_records(folder, starmap(as_record, run_documents(answers)))
    assert replay_decisions(folder, screen) == 0
    assert "8 of 8 recommendations are the same, 8 were followed" in screen.file.getvalue()
    done = CliRunner().invoke(app, ["replay-decisions", str(folder)])
    assert done.exit_code == 0


@pytest.mark.parametrize("harm", ["flipped", "cut", "short"])
def test_a_tampered_record_is_found(tmp_path, harm):
    answers = conversation(tmp_path)
    folder, screen = tmp_path / "scans" / SCAN, Console(file=io.StringIO(), width=200)
    append_records(folder, starmap(as_record, run_documents(answers)))
    file = record_of(tmp_path)
    whole = bytearray(file.read_bytes())
    if harm == "flipped":
        whole[len(whole) // 2] ^= 4
    elif harm == "cut":
        del whole[-7:]
    else:  # whole entries are gone from the end
        at, ends = 0, []
        while at < len(whole):
            at += 20 + int.from_bytes(whole[at : at + 4], "little")
            ends.append(at)
        del whole[ends[-3] :]
    file.write_bytes(whole)
    assert replay_decisions(folder, screen) == 1
    text = screen.file.getvalue()
    assert ("not on record: [6, 7]" in text) if harm == "short" else ("entry" in text)


def test_a_scan_that_was_not_steered_says_so(tmp_path):
    with pytest.raises(ValueError, match="was the scan steered"):
        replay_decisions(tmp_path)
