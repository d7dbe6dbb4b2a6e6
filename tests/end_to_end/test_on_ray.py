"""A run whose network works on another node of a Ray cluster; real nodes, each at an address of its own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.results.cxi import read_result
from tests.helpers.launch.commands import ptychostream
from tests.helpers.launch.ray_nodes import RayNodes, ray_nodes
from tests.helpers.letter import ScannedSample
from tests.helpers.on_ray import BACK_AT, KILLED_AT, scan_on_ray

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with ray_nodes() as running:
        yield running


@pytest.mark.timeout(600)
def test_a_node_that_disappears_costs_its_share_alone_and_helps_again_when_it_is_back(
    run_folder: Path, demo_sample: ScannedSample, nodes: RayNodes
) -> None:
    sample = demo_sample
    outcome, _, _, n_restarts, n_left = scan_on_ray(run_folder, sample, nodes)
    assert (n_restarts, n_left) == (0, 0)
    outcome.assert_accounted(recorded=len(sample))
    assert outcome.figures["is_complete"]
    by = outcome.scan.column("worker").read(np.arange(len(sample)))
    assert (by[:KILLED_AT] > 1).all() and (by[BACK_AT:] > 1).all()
    assert set(by[KILLED_AT:BACK_AT].tolist()) == {1}
    log = (run_folder / "logs" / "cluster.log").read_text()
    assert "ready: " in log
    assert "secret" not in log.lower()


@pytest.mark.timeout(600)
def test_tiles_on_nodes_give_what_processes_here_give(tmp_path: Path, nodes: RayNodes) -> None:
    scan, there, here = tmp_path / "scan.cxi", tmp_path / "there.cxi", tmp_path / "here.cxi"
    write_scan(scan, simulate_scan(Simulation(n_rows=8, n_columns=8)), "test")
    options = ("--tiles", 2, "--threads", 2, "--epochs", 2, "--device", "numpy", "--no-frc")
    for output, on in ((there, ("--on", "ray")), (here, ())):
        done = ptychostream("reconstruct", scan, "--output", output, *options, *on, timeout_s=200)
        assert done.returncode == 0, done.stderr
        assert "2 epochs" in done.stdout
    np.testing.assert_array_equal(read_result(there).object, read_result(here).object)
