import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.training import data
from launch.training.parallel import Processes, cores_of_process
from launch.training.recipe import Recipe
from launch.training.scan_labels import hash_of
from launch.training.train import train
from operators.network.interface import illuminate
from stream.files.weights import load_network
from tests.helpers.launch.tiny_recipe import TINY_RECIPE
from tests.launch.conftest import Call

pytestmark = pytest.mark.usefixtures("short_calibration")

RECIPE = TINY_RECIPE | {
    "n_steps": 60,
    "batch_size": 32,
    "n_textures": 30,
    "report_every": 10,
    "warm_up_steps": 10,
    "gradient_clip": 1e3,
}


def trajectory(folder: Path) -> np.ndarray:
    """(report, [c, sigma_loss]) of the log that a training left."""
    rows = csv.DictReader((folder / "tiny.csv").read_text().splitlines())
    return np.array([[float(row["c"]), float(row["sigma_loss"])] for row in rows])


def torchrun(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = f"-m torch.distributed.run --standalone --nproc-per-node 2 -m {module}"
    return subprocess.run(
        [sys.executable, *command.split(), *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_learn_what_one_learns_from_the_same_batches(tmp_path: Path) -> None:
    train(Recipe.model_validate(RECIPE), tmp_path / "one")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    run = torchrun("launch", "train", tmp_path / "tiny.yaml", "--output", tmp_path / "two")
    assert run.returncode == 0, run.stderr
    one, two = trajectory(tmp_path / "one"), trajectory(tmp_path / "two")
    assert one[-1, 0] < 0.9 * one[0, 0], "nothing was learnt"
    # Not to the last bit: on a CPU each process normalises its own half of a batch.
    np.testing.assert_allclose(two[:, 0], one[:, 0], rtol=0.02)
    np.testing.assert_allclose(two[:, 1], one[:, 1], atol=0.2)
    assert run.stdout.count("tiny.safetensors, version") == 1, "one process reports"


def test_a_batch_that_cannot_be_shared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | {"batch_size": 33}))
    monkeypatch.setenv("WORLD_SIZE", "2")  # as `torchrun` tells each process
    status, _, said = call("train", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "two"))
    assert status == 2
    assert "batch_size = 33 cannot be shared evenly by 2 processes" in said
    assert not (tmp_path / "two").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_processes_learn_from_one_refinement_of_a_scan_and_so_does_a_training_that_goes_on(
    tmp_path: Path,
) -> None:
    fields = TINY_RECIPE | {"scan": {"epochs": 5}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(fields))
    scan, output = tmp_path / "scan.cxi", tmp_path / "two"
    small = Simulation(n_rows=5, n_columns=5, step_px=4, recipe=tmp_path / "tiny.yaml")
    write_scan(scan, simulate_scan(small), "test")
    output.mkdir()
    cut = torchrun("tests.helpers.launch.scan_worker", tmp_path / "tiny.yaml", scan, output, 4)
    assert cut.returncode != 0
    assert (output / "tiny.checkpoint").exists(), cut.stderr
    run = torchrun("tests.helpers.launch.scan_worker", tmp_path / "tiny.yaml", scan, output)
    assert run.returncode == 0, run.stderr
    assert (output / "refined").read_text() == "process 0\n"
    [labels] = output.glob("tiny-labels-*")
    _, card = load_network(output / "tiny.safetensors")
    assert (labels.name, hash_of(labels)) == (card.recipe["scan"]["labels"], card.recipe["scan"]["sha256"])


def test_cores_are_shared_by_the_processes_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(9)))
    assert cores_of_process() == 9
    for n_processes, cores in (("4", 2), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", n_processes)
        assert cores_of_process() == cores


def test_textures_are_drawn_by_as_many_processes_as_there_are_cores_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "cores_of_process", lambda: 3)
    monkeypatch.setattr(data, "Simulator", lambda recipe, device, n_processes: n_processes)
    recipe = Recipe.model_validate(TINY_RECIPE)
    assert data.open_source(recipe, tmp_path) == 1, "few are drawn sooner than processes start"
    assert data.open_source(recipe.model_copy(update={"n_textures": 500}), tmp_path) == 3


def test_processes_share_every_frame_of_a_batch_once() -> None:
    frames = torch.arange(12.0)
    batch = frames, 10 * frames, illuminate(torch.polar(1 + frames, frames)[:, None, None, None])
    shares = [Processes(rank, 3, "cpu").share(*batch) for rank in range(3)]
    for objects, intensities, illumination in shares:
        torch.testing.assert_close(intensities, 10 * objects)
        torch.testing.assert_close(illumination.modes[:, 0, 0, 0], torch.polar(torch.ones(4), objects))
    torch.testing.assert_close(torch.cat([share[0] for share in shares]), frames)
