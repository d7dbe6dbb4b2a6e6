"""The plan as a queue server calls it: by name, with nothing but what JSON holds."""

import ast
import inspect
import json

import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

import yaml

from launch.plans import adaptive
from launch.plans.exposures import max_dose_of
from tests.helpers.launch.plans import PLANNED, Camera, Detector, Motor, Run, Stage, answering
from tests.helpers.launch.runs import TRAINED_PROBE, make_config
from tests.helpers.stream.policies import LIMITS

CAMERA, STAGE = "camera", "stage"


def submitted(item, devices):
    """The plan of a queue item; strings that name devices become them, as in bluesky-queueserver."""
    item = json.loads(json.dumps(item))

    def resolved(value):
        if isinstance(value, list):
            return [resolved(one) for one in value]
        return devices.get(value, value) if isinstance(value, str) else value

    args, kwargs = resolved(item["args"]), {key: resolved(value) for key, value in item["kwargs"].items()}
    return getattr(adaptive, item["name"])(*args, **kwargs)


@pytest.mark.parametrize("policy", ["address", "mapping"])
def test_a_queue_item_steers_a_step_scan(policy):
    run, devices = Run(), {"detector": Detector(), "sy": Motor("y"), "sx": Motor("x")}
    with answering() as address:
        item = {
            "name": "adaptive_ptycho",
            "args": [["detector"], ["sy", "sx"], address if policy == "address" else {"address": address}],
            "kwargs": {
                "fallback": PLANNED.tolist(),
                "limits": np.array(LIMITS).tolist(),
                "batch": 6,
                "max_points": 12,
                "wait_s": 5.0,
                "md": {"sample": "star"},
            },
        }
        run(submitted(item, devices))
    assert run.exit_status == ["success"]
    assert [decision["source"] for decision in run.decisions] == ["agent", "agent", "end"]
    assert run.documents[0][1]["sample"] == "star"


def test_a_queue_item_steers_a_flown_scan():
    run, stage, camera = Run(), Stage(), Camera()
    with answering() as address:
        item = {
            "name": "adaptive_fly_ptycho",
            "args": [[CAMERA], STAGE, address],
            "kwargs": {
                "fallback": PLANNED.tolist(),
                "limits": np.array(LIMITS).tolist(),
                "batch": 12,
                "max_points": 24,
                "wait_s": 5.0,
            },
        }
        try:
            run(submitted(item, {CAMERA: camera, STAGE: stage}))
        finally:
            camera.close()
    assert run.exit_status == ["success"]
    assert len(np.concatenate(stage.flown)) == 24


@pytest.mark.parametrize("plan", [adaptive.adaptive_ptycho, adaptive.adaptive_fly_ptycho])
def test_every_default_can_be_written_down(plan):
    """A queue server lists a plan's defaults as text and reads them back."""
    for parameter in inspect.signature(plan).parameters.values():
        if parameter.default is not parameter.empty:
            assert ast.literal_eval(repr(parameter.default)) == parameter.default


def test_the_dose_is_that_of_the_configuration_of_the_pipeline(tmp_path):
    steering = {"enabled": True, "limits": LIMITS, "max_dose": 2e4}
    config = make_config(tmp_path, probe=TRAINED_PROBE, policy=steering)
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_none=True))))
    limit = max_dose_of(str(file))
    assert limit.photons_per_pixel == 2e4
    assert limit.illumination.sum() == pytest.approx(TRAINED_PROBE["photons"], rel=1e-4)
    without = make_config(tmp_path, probe=TRAINED_PROBE, policy=steering | {"max_dose": None})
    file.write_text(yaml.safe_dump(json.loads(without.model_dump_json(exclude_none=True))))
    with pytest.raises(ValueError, match=r"my.yaml: wanted `policy.max_dose`"):
        max_dose_of(str(file))
