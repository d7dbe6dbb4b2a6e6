"""Examples for other control systems speak to a page beside a policy; their libraries are stood in for."""

import json
import re
import shutil
import subprocess
import sys
import types

import pytest

from stream.wire.sockets import Endpoint
from tests.helpers.documentation import ROOT, blocks_of
from tests.helpers.launch.pages import viewer
from tests.helpers.launch.plans import answering
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.policies import policy

URL, TOKEN = "http://127.0.0.1:8010", "a-token-of-more-than-sixteen-letters"
EXAMPLES = {
    block.reason: block.text
    for block in blocks_of(ROOT / "docs" / "how-to" / "steer-by-http.md")
    if block.mark == "http"
}


@pytest.fixture
def steered(tmp_path):
    """The URL of a page beside a policy, and the policy."""
    (tmp_path / "steering.key").write_text(TOKEN)
    (tmp_path / "steering.header").write_text(f"Authorization: Bearer {TOKEN}\n")
    steers = policy()
    with (
        FakeDoor() as door,
        answering(steers=steers) as address,
        viewer(
            door.address, policy=Endpoint(address=address), steering_token=tmp_path / "steering.key"
        ) as url,
    ):
        yield url, steers


def module(monkeypatch, name, **members):
    """Makes `name` importable, with nothing but these."""
    for part in (name.partition(".")[0], name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    sys.modules[name].__dict__.update(members)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_macro_of_spec_prints_the_next_points(steered, tmp_path):
    url, steers = steered
    body, command = (
        re.sub(r"\\(.)", r"\1", text)
        for text in re.findall(r'sprintf\("((?:[^"\\]|\\.)*)", ', EXAMPLES["spec"])
    )
    for measured in ("[]", "[[1.25, 3.5]]"):
        words = (command % (body % measured)).replace(URL, url).replace("python3", sys.executable)
        printed = subprocess.run(words, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (printed.stderr, len(printed.stdout.splitlines())) == ("", 16)
        assert all(len([float(axis) for axis in line.split()]) == 2 for line in printed.stdout.splitlines())
    assert steers.measured.tolist() == [[1.25, 3.5]]


def test_the_device_of_tango_suggests_and_holds(steered, monkeypatch):
    url, steers = steered

    def command(function=None, **types):
        return function or (lambda function: function)

    def device_property(dtype, default_value=""):
        return default_value.replace(URL, url) or TOKEN

    module(monkeypatch, "tango.server", Device=object, command=command, device_property=device_property)
    names = {}
    exec(EXAMPLES["tango"], names)
    device = names["Steering"]()
    first = json.loads(device.Suggest("[]"))
    assert (len(first["points"]), first["stop"]) == (16, False)
    device.Suggest(json.dumps(first["points"]))
    assert steers.n_measured == 16
    device.Hold()
    assert json.loads(device.Suggest("[]"))["held"]


def test_the_macro_of_sardana_measures_until_its_end(steered, monkeypatch):
    url, steers = steered

    moved = []
    does = {
        "mv": lambda macro, motions: moved.append([position for _, position in motions]),
        "ct": lambda macro, seconds: None,
        "getEnv": lambda macro, name: {"SteeringToken": TOKEN}[name],
    }
    kinds = types.SimpleNamespace(Moveable=0, Integer=0)
    module(monkeypatch, "sardana.macroserver.macro", Macro=type("Macro", (), does), Type=kinds)
    names = {}
    exec(EXAMPLES["sardana"].replace(URL, url), names)
    names["steered"]().run("y", "x", 40)
    assert len(moved) == 40 == len({tuple(place) for place in moved})
    assert steers.measured.tolist() == moved[:32], "the last are reported without a question"
