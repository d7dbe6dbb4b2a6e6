import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from launch.parallel import Processes
from launch.recipe import Recipe
from launch.train import train
from operators.network_interface import illuminate
from tests.launch.tiny_recipe import TINY_RECIPE

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


def torchrun(n_processes: int, recipe: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = f"-m torch.distributed.run --standalone --nproc-per-node {n_processes} -m launch train"
    return subprocess.run(
        [sys.executable, *command.split(), str(recipe), "--output", str(output)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_learn_what_one_learns_from_the_same_batches(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    train(Recipe.model_validate(RECIPE), tmp_path / "one")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    run = torchrun(2, tmp_path / "tiny.yaml", tmp_path / "two")
    assert run.returncode == 0, run.stderr
    one, two = trajectory(tmp_path / "one"), trajectory(tmp_path / "two")
    assert one[-1, 0] < 0.9 * one[0, 0], "nothing was learnt"
    # Not to the last bit: on a CPU each process normalises its own half of a batch.
    np.testing.assert_allclose(two[:, 0], one[:, 0], rtol=0.02)
    np.testing.assert_allclose(two[:, 1], one[:, 1], atol=0.2)
    assert run.stdout.count("tiny.safetensors, version") == 1, "one process reports"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | {"batch_size": 33}))
    run = torchrun(2, tmp_path / "tiny.yaml", tmp_path / "two")
    assert run.returncode != 0
    assert "batch_size = 33 cannot be shared evenly by 2 processes" in run.stderr


def test_processes_share_every_frame_of_a_batch_once() -> None:
    frames = torch.arange(12.0)
    batch = frames, 10 * frames, illuminate(torch.polar(1 + frames, frames)[:, None, None])
    shares = [Processes(rank, 3, "cpu").share(*batch) for rank in range(3)]
    for objects, intensities, illumination in shares:
        torch.testing.assert_close(intensities, 10 * objects)
        torch.testing.assert_close(illumination.probe[:, 0, 0], torch.polar(torch.ones(4), objects))
    torch.testing.assert_close(torch.cat([share[0] for share in shares]), frames)
