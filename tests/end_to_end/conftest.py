"""One pipeline for most tests: it takes many series, and its processes cost seconds to start."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from tests.helpers.letter import ScannedSample, sample_of, scan_sample
from tests.helpers.pipeline import Outcome, Pipeline


@pytest.fixture(scope="package")
def sample() -> ScannedSample:
    return scan_sample()


@pytest.fixture(scope="package")
def demo_sample() -> ScannedSample:
    """A scan that the network which comes with the package is made for."""
    return sample_of(simulate_scan(Simulation(n_rows=14, n_columns=14, family="siemens", seed=5)))


@pytest.fixture(scope="package")
def package_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def pipeline(sample: ScannedSample, package_folder: Path) -> Iterator[Pipeline]:
    """A pipeline without a network; every test plays a series of its own."""
    with Pipeline(package_folder, sample) as running:
        yield running
        assert running.supervisor.n_restarts == 0, running.notices


@pytest.fixture(scope="package")
def well_behaved(pipeline: Pipeline, sample: ScannedSample) -> Outcome:
    """The scan as it should be, which disturbed ones are compared with."""
    return pipeline.run(sample, "well-behaved")
