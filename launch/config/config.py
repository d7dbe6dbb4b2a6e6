"""What one run is told: sections of settings, each with its unit, its bounds and its meaning."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from launch.config.sections import (
    FinetuneConfig,
    FinisherConfig,
    PvaConfig,
    ResultsConfig,
    StoreConfig,
    ViewerConfig,
    kept,
)
from operators.section import Section
from stream.detector.config import DetectorConfig
from stream.documents.config import PositionsConfig
from stream.files.paths import OutputPath
from stream.stages.config import (
    GeometryConfig,
    LiveConfig,
    NetworkConfig,
    ProbeConfig,
    RefinementConfig,
    RemoteConfig,
    SeriesConfig,
)
from stream.steering.config import PolicyConfig

_WEIGHTS = Path(__file__).parents[1] / "weights"
DEMO_WEIGHTS, FAST_WEIGHTS = _WEIGHTS / "physics-64.safetensors", _WEIGHTS / "physics-64-fast.safetensors"
SHIPPED_WEIGHTS = {"demo": DEMO_WEIGHTS, "demo-fast": FAST_WEIGHTS}
"""The package's own weights, by the name that settings have for them."""


def _with_shipped_weights(network: object) -> object:
    """Return the settings of the network with the package's own weights where they name them."""
    if not isinstance(network, dict):
        return network
    if network.get("weights") == "demo" and not network.get("members"):
        network = {"fast_weights": "demo-fast", **network}
    named = {key: SHIPPED_WEIGHTS.get(str(network.get(key))) for key in ("weights", "fast_weights")}
    return network | {key: weights for key, weights in named.items() if weights}


def _checked_keep(keep: str) -> str:
    if keep:
        kept(keep)
    return keep


class Config(Section):
    """Everything one run is told."""

    geometry: GeometryConfig
    """where detector and sample are"""
    detector: DetectorConfig
    """the stream of frames"""
    positions: PositionsConfig
    """where the probe was"""
    probe: ProbeConfig = ProbeConfig()
    """the illumination that reconstruction starts from"""
    network: Annotated[NetworkConfig, BeforeValidator(_with_shipped_weights)] = NetworkConfig()
    """the network that gives the first image of every frame"""
    refinement: RefinementConfig = RefinementConfig()
    """the iterative reconstruction that follows the scan"""
    remote: RemoteConfig = RemoteConfig()
    """stages on other machines"""
    series: SeriesConfig = SeriesConfig()
    """scans that follow each other"""
    finetune: FinetuneConfig = FinetuneConfig()
    """learning the sample while it is scanned"""
    live: LiveConfig = LiveConfig()
    """where clients fetch the growing image"""
    viewer: ViewerConfig = ViewerConfig()
    """the web page"""
    pva: PvaConfig = PvaConfig()
    """the live image as EPICS PVs"""
    policy: PolicyConfig = PolicyConfig()
    """advice on where to measure next"""
    finisher: FinisherConfig = FinisherConfig()
    """what remains of a scan when the next one has begun"""
    results: ResultsConfig = ResultsConfig()
    """what is made of a finished scan beside its result"""
    store: StoreConfig = StoreConfig()
    """the catalogue that finished scans are registered in"""
    save: OutputPath = Path("recordings")
    """folder for scans, results and logs"""
    keep: Annotated[str, AfterValidator(_checked_keep)] = ""
    """how much stays of finished scans whose results are written, `20 scans` or `500 GB`: when a new one
    begins, the oldest beyond that are removed, frames and all; empty removes nothing, ever"""

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
        if self.remote.enabled and self.network.weights is None and not self.remote.lends_refinement:
            raise ValueError(
                "`remote` is for inference, which needs `network.weights`, or for `remote.refinement`"
            )
        if self.remote.refinement != "here" and not (self.remote.enabled and self.refinement.enabled):
            where = self.remote.refinement
            raise ValueError(
                f"remote.refinement: {where} needs `remote.enabled: true` and `refinement.enabled: true`"
            )
        if self.series.reuse != "none" and not self.refinement.enabled:
            raise ValueError("`series.reuse` takes over what was refined: set `refinement.enabled`")
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
        if self.positions.monitor and self.remote.enabled:
            raise ValueError("`positions.monitor` is not sent to other machines: set `remote.enabled: false`")
        if self.policy.enabled and (self.probe.source == "data" or self.positions.unit is None):
            raise ValueError("the policy needs a known probe (`probe.source`) and `positions.unit`")
        return self


_ADDED = {
    "geometry": ("dark", "flat", "transpose", "flip_rows", "flip_columns"),
    "detector": ("n_triggers", "format", "pv", "first_number", "path", "dataset", "takes_old"),
    "positions": (
        *("settled", "settling_frames", "line_frames", "captures_per_frame"),
        *("pvs", "take_existing", "numbers", "first_number", "monitor", "monitor_reference"),
    ),
    "refinement": ("seeded_step", "fits_flux"),
    "series": ("reuse",),
    "viewer": ("hosts",),
}
"""Settings by section that came after the first run files were written."""


def config_hash(config: Config) -> str:
    """Returns 16 hexadecimal digits that change with whatever the image depends on.

    Left out are the folder, where files of positions lie, the kinds of results, when and where scans are
    finished, which machines help, who gets how much of the processor, what the choice of the network came
    from, who may watch, and settings that an earlier version did not have, unless they are set.
    """
    settings = config.model_dump(
        mode="json",
        exclude={
            "save": True,
            "keep": True,
            "results": True,
            "finisher": True,
            "remote": True,
            "pva": True,
            "refinement": {"share": True, "frames_gb": True},
            "detector": {"rate_hz": True, "subscribers": True},  # a run has made the choice
            "network": {"fast_weights": True, "workers": True, "devices": True},
            "positions": {"folders": True, "root_map": True, "growing_path": True},
            "viewer": {"metrics_token": True, "steering_token": True},
        },
    )
    for name, added in _ADDED.items():
        section: Section = getattr(config, name)
        for key in added:
            if getattr(section, key) == type(section).model_fields[key].default:
                del settings[name][key]
        if not settings[name]:
            del settings[name]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
