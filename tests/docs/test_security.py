"""SECURITY.md says of the code what the code says itself."""

import ast
import re

import pytest

from launch.config.sections import ViewerConfig
from stream.stages.config import DetectorConfig, EndpointSection, LiveConfig, PositionsConfig
from stream.steering.config import PolicyConfig
from tests.helpers.documentation import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)`", TEXT, re.MULTILINE))
SECTIONS = {"positions": PositionsConfig, "live": LiveConfig, "policy": PolicyConfig}
CODE = [path for room in ("operators", "stream", "launch") for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("name", SECTIONS)
def test_an_address_is_what_is_said_and_of_this_machine_alone(name):
    section: type[EndpointSection] = SECTIONS[name]
    address = section.model_fields["address"].default
    assert ROWS[name] == address
    assert address.startswith("tcp://127.0.0.1:")


def test_the_detector_is_connected_to():
    assert DetectorConfig.model_fields["bind"].default is False


def test_the_page_is_where_it_is_said_to_be():
    page = ViewerConfig()
    assert ROWS["viewer"] == f"{page.host}:{page.port}"


def test_nothing_is_unpickled_anywhere():
    imported, called = set(), set()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported |= {name.name for name in node.names} | {getattr(node, "module", None)}
            if isinstance(node, ast.Call):
                called.add((ast.unparse(node.func), "allow_pickle=False" in ast.unparse(node)))
    assert not imported & {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
    assert {is_closed for name, is_closed in called if name == "np.load"} == {True}
    assert not {name for name, _ in called} & {"torch.load", "eval", "exec", "yaml.unsafe_load"}
