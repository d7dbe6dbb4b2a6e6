"""What programs of other people rely on: a number of the protocol is a promise, and the page tells all."""

import re

import msgspec
import pytest

from stream.remote import messages as remote_messages
from stream.wire import lease_messages, messages
from stream.wire.messages import PROTOCOL, AnyMessage
from tests.helpers.documentation import ROOT

PAGE = (ROOT / "docs" / "reference" / "wire.md").read_text()
KINDS = {kind.__name__: kind for kind in AnyMessage.__args__}
OF_WORKERS = {
    name: kind
    for module in (lease_messages, remote_messages)
    for name, kind in vars(module).items()
    if isinstance(kind, type)
}

# What protocol 2 has promised to clients. To add is free; who takes away or renames needs another PROTOCOL,
# and begins this list anew.
PROMISED = {
    "Hello": "arrays protocol schema role pid",
    "Welcome": "arrays run_id",
    "Reject": "arrays reason",
    "Ask": "arrays scan after",
    "NoNews": "arrays counts state",
    "ObjectUpdate": "arrays tile_px bounds figures state",
    "ImageFigures": (
        "coverage68 coverage95 sigma_factor n_calibrated alarm scan run_id version object_pixel_m "
        "frames_seen epoch model config_hash error time_to_image_ms counts models is_final note motors"
    ),
    "MotorAxes": "unit origin pitch",
    "RunState": "scan level text stages finishing finished",
    "StageState": "name text level",
    "FinishingScan": "name text",
    "FinishedScan": "name text result",
    "Consult": "arrays run question after n_points heard held region",
    "Recommendation": (
        "arrays run question sequence scan frames_seen n_measured map_hash expires_s predicted_gain "
        "shown_predicted_gain realised_gain stop reasons"
    ),
    "Controls": "arrays run controls",
    "Control": "number deed region by",
    "Decided": "arrays run source reason n_points n_left",
    "Command": "arrays deed region by",
    "AskSteering": "arrays",
    "Steering": (
        "arrays plan asked_s held stopped region limits unit origin pitch n_measured n_left sequence "
        "dose_peak max_dose predicted_gain shown_predicted_gain realised_gain reasons source reason controls"
    ),
}
BUFFERS = {
    "ObjectUpdate": ("tiles", "object", "sigma", "photons", "source", "frames", "path"),
    "Consult": ("measured",),
    "Recommendation": ("points",),
    "Steering": ("points",),
}
FROM_CLIENTS = {
    "Hello": {"protocol", "role"},
    "Ask": set(),
    "Consult": {"run", "question", "after", "n_points"},
    "Decided": {"run", "source", "reason"},
    "Command": {"deed"},
    "AskSteering": set(),
}


@pytest.mark.parametrize("name", PROMISED)
def test_what_a_client_of_this_protocol_reads_is_there(name):
    assert PROTOCOL == 2
    kind = getattr(messages, name)
    assert set(PROMISED[name].split()) <= set(kind.__struct_fields__)
    promised = BUFFERS.get(name, ())
    assert getattr(kind, "BUFFERS", ())[: len(promised)] == promised


@pytest.mark.parametrize("name", FROM_CLIENTS)
def test_what_a_client_of_this_protocol_says_is_understood(name):
    required = {field.name for field in msgspec.structs.fields(KINDS[name]) if field.required}
    assert required == FROM_CLIENTS[name]


def test_the_page_says_of_every_message_who_sends_it_and_of_none_that_is_not():
    edges = PAGE.partition("## Who talks to whom")[2]
    assert not [name for name in KINDS if not re.search(rf"\b{name}\b", edges)]
    for name, fields in re.findall(r"`([A-Z]\w+)\(([\w, ]+)\)`", PAGE):
        assert set(fields.split(", ")) <= set((OF_WORKERS | KINDS)[name].__struct_fields__), name


def test_the_page_names_the_number_of_the_protocol():
    assert f"`PROTOCOL` in `stream/wire/messages.py`, now {PROTOCOL}." in PAGE
