"""What one run is told: sections of settings, each with its unit, its bounds and its meaning.

Separate from `launch.config_file`, which reads YAML, so that a program can build a `Config` without a file.
Called by every command, and by the stage processes, which read the same `Config` back from the run file.
"""

import hashlib
import json
from pathlib import Path
from typing import Self

from pydantic import model_validator

from launch.config_inputs import DetectorSection, GeometrySection, PositionsSection, ProbeSection
from launch.config_stages import (
    LiveSection,
    NetworkSection,
    PolicySection,
    RefinementSection,
    StoreSection,
    ViewerSection,
)
from launch.settings import OutputPath, Section


class Config(Section):
    """Everything one run is told."""

    geometry: GeometrySection
    """where detector and sample are"""
    detector: DetectorSection
    """the stream of frames"""
    positions: PositionsSection
    """where the probe was"""
    probe: ProbeSection = ProbeSection()
    network: NetworkSection = NetworkSection()
    refinement: RefinementSection = RefinementSection()
    live: LiveSection = LiveSection()
    viewer: ViewerSection = ViewerSection()
    policy: PolicySection = PolicySection()
    store: StoreSection = StoreSection()
    save: OutputPath = Path("recordings")
    """folder for scans, results and logs"""

    @model_validator(mode="after")
    def _makes_an_image(self) -> Self:
        if self.network.weights is None and not self.refinement.enabled:
            raise ValueError("nothing makes an image: give `network.weights` or set `refinement.enabled`")
        if self.network.weights is not None and self.probe.source == "data":
            raise ValueError("the network needs a known probe: set `probe.source` to 'file' or 'zone_plate'")
        if self.policy.enabled and (self.probe.source == "data" or self.positions.unit is None):
            raise ValueError("the policy needs a known probe (`probe.source`) and `positions.unit`")
        return self


def config_hash(config: Config) -> str:
    """Returns 16 hexadecimal digits that change with any setting but the folder results go to."""
    settings = config.model_dump(mode="json", exclude={"save"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
