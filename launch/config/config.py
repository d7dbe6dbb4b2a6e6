"""What one run is told: sections of settings, each with its unit, its bounds and its meaning."""

import hashlib
import json
from pathlib import Path
from typing import Self

from pydantic import model_validator

from launch.config.inputs import DetectorSection, GeometrySection, PositionsSection, ProbeSection
from launch.config.section import OutputPath, Section
from launch.config.stages import (
    FinetuneSection,
    LiveSection,
    NetworkSection,
    PolicySection,
    RefinementSection,
    StoreSection,
    ViewerSection,
)


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
    finetune: FinetuneSection = FinetuneSection()
    live: LiveSection = LiveSection()
    viewer: ViewerSection = ViewerSection()
    policy: PolicySection = PolicySection()
    store: StoreSection = StoreSection()
    save: OutputPath = Path("recordings")
    """folder for scans, results and logs"""

    @property
    def finds_probe(self) -> bool:
        """Whether the probe that the network needs is found or corrected during the scan."""
        return self.network.weights is not None and (self.probe.source == "data" or self.probe.is_guess)

    @property
    def scales_probe(self) -> bool:
        """Whether refinement scales the probe: one that was found for a network has the network's scale."""
        return self.probe.scale and not self.finds_probe

    @model_validator(mode="after")
    def _makes_an_image(self) -> Self:
        if self.network.weights is None and not self.refinement.enabled:
            raise ValueError("nothing makes an image: give `network.weights` or set `refinement.enabled`")
        if self.probe.is_guess and (self.network.weights is None or self.probe.source == "data"):
            raise ValueError("`probe.is_guess` is for a probe that is known and a network that needs it")
        if self.finetune.enabled and (self.network.weights is None or not self.refinement.enabled):
            raise ValueError("`finetune` needs `network.weights` to tune and `refinement` to learn from")
        if self.finetune.enabled and self.network.members:
            # What is tuned is tried alone, before it is used: beside members the trial would say little.
            raise ValueError(
                f"`finetune` tunes one network, and disagreement: {self.network.disagreement} would mix it "
                f"with {len(self.network.members)} members that stay untuned; disable one of them, or let "
                "disagreement: dropout thin the tuned network"
            )
        if self.policy.enabled and (self.probe.source == "data" or self.positions.unit is None):
            raise ValueError("the policy needs a known probe (`probe.source`) and `positions.unit`")
        return self


def config_hash(config: Config) -> str:
    """Returns 16 hexadecimal digits that change with any setting but the folder results go to."""
    settings = config.model_dump(mode="json", exclude={"save"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
