"""The stages that are measured, without those that need PyTorch: memory is measured as they take it alone."""

from pathlib import Path
from typing import Any

from stream.stages.config import LiveConfig, RefinementConfig
from stream.stages.inputs import ImageOrigin
from stream.stages.refinement.worker import Refinement
from stream.stages.stitching.worker import Stitcher
from tests.benchmarks.growth.scans import Frames


class Ticks:
    """A clock by which a second passes at every look, so that whatever waits for its time is due, or none."""

    def __init__(self) -> None:
        self.now, self.step_s = 0.0, 1.0

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


def no_work() -> float:
    """Return the time that versions of the image have taken to make: none, so that all are due in time."""
    return 0.0


def refinement(frames: Frames, folder: Path, **settings: Any) -> Refinement:
    """Return refinement of a scan with a network and a known probe, which lies in `folder`."""
    return Refinement(
        RefinementConfig(**settings),
        frames.optics(folder),
        n_modes=1,
        scale_probe=True,
        uses_network=True,
        starts_over=False,
        clock=Ticks(),
    )


def stitcher(frames: Frames, folder: Path, *, uses_refinement: bool) -> Stitcher:
    """Return the stage that publishes a network's mosaic, joined to the refined object or not."""
    origin = ImageOrigin(optics=frames.optics(folder), uses_network=True, uses_refinement=uses_refinement)
    config = LiveConfig(address="tcp://127.0.0.1:*")
    return Stitcher(config, origin, Ticks(), work_clock=no_work)
