import importlib.util
from itertools import chain
from types import SimpleNamespace

import pytest

from launch.config.run_file import StageSpec, new_run
from launch.run import processes, stages
from launch.run.processes import can_do_without
from tests.helpers.launch.runs import make_config


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


def test_what_the_processes_of_a_run_import_is_loaded_for_the_page_first_and_with_the_network_last(tmp_path):
    config = make_config(tmp_path, network={"weights": "demo"}, finetune={"enabled": True})
    run = new_run(config, stages.stages_of(config))
    batches = processes.fork_server_of(run)._batches
    with_torch = ["stream.stages.inference.worker" in batch for batch in batches]
    assert "launch.page.service" in batches[0]
    assert with_torch == sorted(with_torch)
    assert sum(with_torch) == 3, "of inference, of the finisher, which closes with it, and of finetuning"
    assert all(importlib.util.find_spec(module) for module in chain(*batches))


def test_every_builder_that_imports_much_is_one_of_a_run():
    assert all(callable(getattr(stages, builder)) for builder in processes._IMPORTS)
