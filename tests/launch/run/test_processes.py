from types import SimpleNamespace

import pytest

from launch.config.run_file import StageSpec
from launch.run import processes
from launch.run.processes import can_do_without


def process(name, *, was_ready=True, is_given_up=False, **options):
    spec = StageSpec(name=name, builder="module:function", **options)
    return SimpleNamespace(spec=spec, was_ready=was_ready, is_given_up=is_given_up)


def test_a_run_goes_on_while_one_of_those_that_share_a_stage_is_left():
    first, second = (process(f"inference-{n}", shares="inference") for n in (1, 2))
    others = [first, second, process("stitcher")]
    assert can_do_without(first, others)
    second.is_given_up = True
    assert not can_do_without(first, others)


def test_a_run_needs_what_is_vital_and_what_was_never_ready():
    page, stitcher = process("viewer", is_vital=False), process("stitcher")
    others = [page, stitcher]
    assert can_do_without(page, others)
    assert not can_do_without(stitcher, others)
    page.was_ready = False
    assert not can_do_without(page, others)
    beginner = process("inference-1", shares="inference", was_ready=False)
    assert not can_do_without(beginner, [beginner, process("inference-2", shares="inference")])


@pytest.mark.parametrize(
    ("device", "visible", "seen"),
    [
        ("cuda:1", None, "1"),
        ("cuda:1", "4,6", "6"),
        ("cuda:2", "4,6", ""),
        ("cpu", "4,6", ""),
        ("", "4,6", "4,6"),
    ],
)
def test_a_process_sees_the_device_that_it_is_given_of_those_that_its_run_sees(
    device, visible, seen, monkeypatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    spec = StageSpec(name="inference-1", builder="module:function", device=device)
    assert processes.environment_of(spec)["CUDA_VISIBLE_DEVICES"] == seen
