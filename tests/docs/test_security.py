"""SECURITY.md says of the code what the code says itself."""

import ast
import functools
import re

import pytest

from launch.config.sections import ViewerConfig
from stream.detector.config import DetectorConfig
from stream.documents.config import PositionsConfig
from stream.files.endpoint_section import EndpointSection
from stream.stages.config import LiveConfig, RemoteConfig
from stream.steering.config import PolicyConfig
from tests.helpers.documentation import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)`", TEXT, re.MULTILINE))
SECTIONS = {
    "positions": PositionsConfig,
    "live": LiveConfig,
    "policy": PolicyConfig,
    "remote": RemoteConfig,
}
CODE = [path for room in ("operators", "stream", "launch") for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("name", SECTIONS)
def test_an_address_is_what_is_said_and_of_this_machine_alone(name):
    section: type[EndpointSection] = SECTIONS[name]
    address = section.model_fields["address"].default
    assert ROWS[name] == address
    assert address.startswith("tcp://127.0.0.1:")


def test_the_second_address_of_other_machines_is_what_is_said_and_of_this_machine_alone():
    address = RemoteConfig.model_fields["refinement_address"].default
    assert f"| `remote.refinement_address` | `{address}`" in TEXT
    assert address.startswith("tcp://127.0.0.1:")


def test_the_detector_is_connected_to():
    assert DetectorConfig.model_fields["bind"].default is False


def test_the_page_is_where_it_is_said_to_be():
    page = ViewerConfig()
    assert ROWS["viewer"] == f"{page.host}:{page.port}"


UNPICKLES = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "msgpack_numpy"}
RUNS_CODE = {"torch.load", "torch.jit.load", "torch.hub.load", "eval", "exec", "os.system", "os.popen"}


@functools.cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Every import and call in the code, with the file where it is."""
    trees = [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in CODE]
    wanted = ast.Import | ast.ImportFrom | ast.Call
    return [(place, node) for place, tree in trees for node in ast.walk(tree) if isinstance(node, wanted)]


def calls() -> list[tuple[str, str, ast.Call]]:
    """Every call of something that has a name: where it is, what is called, and the call."""
    return [(place, dotted(node.func), node) for place, node in nodes() if isinstance(node, ast.Call)]


def dotted(node: ast.AST) -> str:
    """The name of something as it is written, without what is called or indexed before it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_nothing_is_unpickled_anywhere():
    imported = set()
    for _, node in nodes():
        if not isinstance(node, ast.Call):
            imported |= {name.name for name in node.names} | {getattr(node, "module", None)}
    assert not imported & UNPICKLES
    called = [(name, call) for _, name, call in calls()]
    loads = [ast.unparse(call) for name, call in called if name in ("np.load", "numpy.load")]
    assert loads and all("allow_pickle=False" in text for text in loads)
    assert not [name for name, _ in called if name in RUNS_CODE]
    assert not [name for name, call in called if any(word.arg == "shell" for word in call.keywords)]
    # its loader is a safe one: tests/launch/test_code_in_data.py
    yaml = [ast.unparse(call) for name, call in called if name.startswith("yaml.") and "load" in name]
    assert yaml == ["yaml.load(text, _Loader)"]


# Where sockets of ZeroMQ are opened, and by which row of the table their address is.
OPENED = {
    "stream/stages/link.py": "between the processes of a run",
    "launch/run/supervisor.py": "between the processes of a run",
    "stream/stages/loop.py": "`live`",  # `remote.refinement_address`, and what sources hear
    "stream/steering/policy_server.py": "`policy`",
    "stream/remote/inference/service.py": "`remote`",
    "launch/commands/check.py": "`detector`",  # in the place of the stages
}
CONNECTING = {
    "stream/wire/handshake.py",
    "stream/remote/line.py",
    "stream/documents/publisher.py",
    "stream/detector/simulator.py",
    "stream/documents/senders.py",  # in the place of a relay
}


def test_every_socket_that_is_opened_anywhere_is_one_of_those_named():
    found = {place for place, name, _ in calls() if name == "Socket"}
    assert found == OPENED.keys() | CONNECTING
    assert all(f"| {row} |" in TEXT for row in OPENED.values())


def test_an_address_that_is_bound_is_a_section_of_the_configuration_or_a_file_of_the_run():
    """Both may have keys, or need none; no other is made in the code, but for who plays the detector."""
    found = [(place, ast.unparse(call)) for place, name, call in calls() if name == "Endpoint"]
    found = [(place, text) for place, text in found if "bind=" in text]
    assert {place for place, _ in found} == {"stream/stages/link.py", "launch/cli/replay.py"}
    assert all("ipc://" in made for place, made in found if place == "stream/stages/link.py")
