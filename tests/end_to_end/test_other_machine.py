"""A worker of inference on another machine: a folder of its own, keys, TCP, and a line that is cut."""

from pathlib import Path

import numpy as np
import pytest

from launch.config.config import FAST_WEIGHTS
from stream.stages.config import GeometryConfig, NetworkConfig
from stream.stages.inference.worker import Inference, ScanPasses
from stream.stages.inputs import Optics
from tests.helpers.letter import ScannedSample
from tests.helpers.other_machine import shared_scan

pytestmark = [pytest.mark.slow, pytest.mark.alone]

MOST_TO_RESUME_S = 0.5


@pytest.mark.timeout(300)
def test_a_worker_on_another_machine_does_its_share_survives_a_cut_and_may_vanish(
    run_folder: Path, demo_sample: ScannedSample
) -> None:
    sample = demo_sample
    outcome, trouble, n_restarts = shared_scan(run_folder, sample)
    assert n_restarts == 0

    outcome.assert_accounted(recorded=len(sample))
    assert outcome.figures["is_complete"]
    scan, numbers = outcome.scan, np.arange(len(sample))
    by = scan.column("worker").read(numbers)
    assert set(by[trouble.alone_at : trouble.dead_at].tolist()) == {2}
    assert set(by[trouble.dead_at :].tolist()) == {1}
    geometry = GeometryConfig(**sample.geometry_settings)
    inference = Inference(
        NetworkConfig(weights=FAST_WEIGHTS, device="cpu"),
        Optics(geometry, run_folder / "save" / "known-probe.npy"),
    )
    passes = ScanPasses(inference, scan)
    ready = passes.weights.look()
    made = np.concatenate([passes.infer(ready, part).patches for part in np.array_split(numbers, 25)])
    passes.weights.close()
    difference = np.abs(scan.column("patches").read(numbers) - made).max(axis=(1, 2))
    assert difference.max() < 1e-3 * np.abs(made).max()
    assert trouble.resumed_s < MOST_TO_RESUME_S
