"""The plan as a queue server calls it: by name, with nothing but what JSON holds."""

import json

import numpy as np
import pytest

pytest.importorskip("bluesky_queueserver", reason="the extra 'dev' is not installed")

import yaml
from bluesky_queueserver import validate_plan
from bluesky_queueserver.manager.profile_ops import existing_plans_and_devices_from_nspace, prepare_plan

from launch.plans import adaptive_fly_ptycho, adaptive_ptycho
from launch.plans.exposures import max_dose_of
from tests.helpers.launch.plans import PLANNED, Camera, Detector, Motor, Run, Stage, answering
from tests.helpers.launch.runs import TRAINED_PROBE, make_config
from tests.helpers.stream.policies import LIMITS

CAMERA, STAGE = "camera", "stage"
PLANS = {"adaptive_ptycho": adaptive_ptycho, "adaptive_fly_ptycho": adaptive_fly_ptycho}


def described(devices):
    """How a queue server describes the plans and devices of a startup file."""
    return existing_plans_and_devices_from_nspace(nspace={**devices, **PLANS})


def submitted(item, devices):
    """The plan of a queue item, made by the server's own code: it validates, and names become devices."""
    plans, known, plans_there, devices_there = described(devices)
    prepared = prepare_plan(
        json.loads(json.dumps(item)) | {"user_group": "primary"},
        plans_in_nspace=plans_there,
        devices_in_nspace=devices_there,
        allowed_plans={"primary": plans},
        allowed_devices={"primary": known},
        nspace={**devices, **PLANS},
    )
    return prepared["callable"](*prepared["args"], **prepared["kwargs"])


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
                "md": {"sample": "star", "blop_correlation_uid": "7"},  # by which agents find their runs
            },
        }
        run(submitted(item, devices))
    assert run.exit_status == ["success"]
    assert [decision["source"] for decision in run.decisions] == ["agent", "agent", "end"]
    start = run.documents[0][1]
    assert (start["sample"], start["blop_correlation_uid"]) == ("star", "7")


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


WRONG = {
    "fallback": "a spiral",
    "limits": [0, 10],
    "batch": "many",
    "max_points": 1.5,
    "md": 3,
    "overlap": 0.6,
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("wrong", [None, *WRONG])
def test_what_is_wrong_with_an_item_is_said_when_it_is_added(name, wrong):
    plans, devices, _, _ = described({"sy": Motor("y"), "sx": Motor("x"), "detector": Detector()})
    where = {
        "fallback": [[0, 0], [1, 1.5]],
        "limits": [[0, 10], [0, 10]],
        "md": {"sample": "sy"},
        "max_points": 9,
    }
    moved = ["sy", "sx"] if name == "adaptive_ptycho" else STAGE
    item = {"name": name, "args": [["detector"], moved, "tcp://127.0.0.1:5811"], "kwargs": where}
    if wrong is not None:
        item["kwargs"] = {**where, wrong: WRONG[wrong]}
    is_valid, complaint = validate_plan(item, allowed_plans=plans, allowed_devices=devices)
    assert is_valid == (wrong is None)
    assert wrong is None or wrong in complaint


def test_a_word_that_names_a_device_stays_a_word_in_the_metadata():
    run, devices = Run(), {"detector": Detector(), "sy": Motor("y"), "sx": Motor("x")}
    where = {
        "fallback": PLANNED.tolist(),
        "limits": np.array(LIMITS).tolist(),
        "wait_s": 0.0,
        "max_points": 1,
    }
    item = {"name": "adaptive_ptycho", "args": [["detector"], ["sy", "sx"], {"address": "tcp://127.0.0.1:9"}]}
    run(submitted({**item, "kwargs": {**where, "md": {"sample": "sy"}}}, devices))
    assert run.documents[0][1]["sample"] == "sy"


def test_a_dose_that_is_no_file_is_refused():
    with pytest.raises(TypeError, match=r"path of a configuration, got 20000\.0"):
        max_dose_of(2e4)


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
