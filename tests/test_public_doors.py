"""What users import: names, parameters and defaults. A change here is a change for every user."""

import importlib
import inspect
import subprocess
import sys

import pytest

LIVE = "address='tcp://127.0.0.1:5810', *, insecure=False, key=None, peers=None"
POLICY = "address='tcp://127.0.0.1:5811', *, insecure=False, key=None, peers=None"
STEERED = (
    "policy, *, fallback, limits, max_dose=None, max_points=None, batch={batch}, stale_after=60.0, "
    "wait_s=0.5, hold_s=3600.0, "
)
DOORS = {
    "stream.client": {
        "LiveReconstruction": f"{LIVE}, timeout_s=10.0, follow=False, clock=<built-in function monotonic>",
        "LiveReconstruction.poll": "self, timeout_s=0.0",
        "LiveReconstruction.latest": "self, timeout_s=1.0",
        "LiveReconstruction.check_silence": "self",
        "LiveReconstruction.close": "self",
        "PolicyClient": f"{POLICY}, clock=<built-in function monotonic>",
        "PolicyClient.ask": "self, measured, n_points, failed=()",
        "PolicyClient.poll": "self",
        "PolicyClient.complaint": "self",
        "PolicyClient.tell": "self, source, reason, n_points, n_left",
        "PolicyClient.close": "self",
        "RemotePolicy": (
            "client, motors=('y', 'x'), *, timeout_s=5.0, file=None, wait=<built-in function sleep>"
        ),
        "RemotePolicy.suggest": "self, num_points=None",
        "RemotePolicy.ingest": "self, points",
        "RemotePolicy.get_best_points": "self",
        "RemotePolicy.should_stop": "self",
        "RemotePolicy.register_failures": "self, suggestions",
        "RemotePolicy.checkpoint": "self",
        "RemotePolicy.next_points": "self, n_points",
        "RemotePolicy.known": "self",
        "RemotePolicy.count": "self, measured",
        "RemotePolicy.give_up": "self, failed",
        "RemotePolicy.close": "self",
        "SteeringClient": f"{POLICY}, timeout_s=5.0",
        "SteeringClient.report": "self",
        "SteeringClient.say": "self, deed, region=None, by=''",
        "SteeringClient.close": "self",
    },
    "launch.plans": {
        "adaptive_ptycho": f"detectors, motors, {STEERED.format(batch=32)}md=None",
        "adaptive_fly_ptycho": f"detectors, flyer, {STEERED.format(batch=512)}flush_period=0.1, md=None",
    },
    "operators.reconstruct": {
        "reconstruct": "frames, positions_px, probe, *, mask=None, is_centred=True, config=None, "
        "epochs=40.0, scale_probe=True, device='auto', threads=1, progress=None",
        "Solution": "object, bounds, probe, photons, positions_px, error_history",
    },
}
NAMES = [(door, name) for door, names in DOORS.items() for name in names]


def found(door, name):
    if door == "launch.plans":
        pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")
    thing = importlib.import_module(door)
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_the_signature_of_a_public_name_stays(door, name):
    parameters = inspect.signature(found(door, name)).parameters.values()
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    assert str(inspect.Signature(plain)) == f"({DOORS[door][name]})"


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_a_public_name_has_a_docstring(door, name):
    assert len(inspect.getdoc(found(door, name))) > 20


@pytest.mark.parametrize("door", ["stream.client", "launch.plans"])
def test_a_door_has_the_public_names_and_no_other(door):
    module = importlib.import_module(door)
    assert sorted(module.__all__) == sorted({name.partition(".")[0] for name in DOORS[door]})


def test_a_public_class_has_no_other_public_methods():
    for door, name in NAMES:
        thing = found(door, name)
        if inspect.isclass(thing) and door == "stream.client":
            methods = {f"{name}.{key}" for key, value in vars(thing).items() if inspect.isfunction(value)}
            assert {method for method in methods if "._" not in method} <= DOORS[door].keys()


def test_the_plans_load_bluesky_and_nothing_of_the_pipeline():
    pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")
    heavy = "{'torch', 'scipy', 'h5py', 'pydantic', 'matplotlib', 'aiohttp', 'yaml', 'tiled', 'ophyd_async'}"
    code = f"import sys, launch.plans; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ["operators", "stream", "launch"])
def test_each_room_says_that_everything_else_may_change(room):
    assert "everything else may" in importlib.import_module(room).__doc__
