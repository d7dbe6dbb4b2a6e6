"""What is known before a run of its probe, its positions and its network, from the configuration."""

from functools import cached_property
from pathlib import Path
from typing import Any

from launch.config.config import Config
from operators.arrays import Positions, Probe
from operators.mosaic.error_bars import ErrorModel
from operators.optics.probe import with_power, zone_plate_probe
from stream.files.probe import read_probe
from stream.record.tuned_weights import ensemble_id
from stream.stages.config import ProbeConfig


class Known:
    """What the configuration names, each read when it is first asked for, and once.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def probe(self) -> Probe | None:
        """That of `known_probe`; raises as it does."""
        return known_probe(self.config.probe, self.config.geometry.n_pixels)

    @cached_property
    def positions_m(self) -> Positions | None:
        """Positions of the file, (frame, 2) float64 metres, None where documents bring them.

        Raises ValueError if the file cannot be read as positions.
        """
        from stream.documents.position_file import (
            load_positions,  # brings what stages that know none do without
        )

        section = self.config.positions
        if section.source != "file" or section.path is None:
            return None
        return load_positions(section.path, section)


def known_probe(section: ProbeConfig, n_pixels: int) -> Probe | None:
    """Returns the probe known before the scan, (mode, y, x) complex64, None if it comes from the data.

    Raises
    ------
    ValueError
        If the file holds no probe.
    """
    if section.source == "zone_plate" and section.pupil_radius_px and section.disc_radius_px is not None:
        radii = section.pupil_radius_px, section.disc_radius_px
        probe = zone_plate_probe(n_pixels, *radii, section.central_stop)[None]
    elif section.source == "file" and section.path:
        probe = read_probe(section.path)
    else:
        return None
    return probe if section.photons is None else with_power(probe, section.photons)


def model_card(config: Config) -> dict[str, Any]:
    """Returns the card of the network's weights (`stream.files.weights.ModelCard`), read without torch.

    Empty without a network.
    """
    return {} if config.network.weights is None else read_card(config.network.weights)


def read_card(weights: Path) -> dict[str, Any]:
    """Returns the card of a weights file, read without torch.

    Raises
    ------
    ValueError
        If it is no weights file of ours.
    """
    import json

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "numpy") as file:
            metadata = file.metadata() or {}
        card: dict[str, Any] = json.loads(metadata["card"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"network.weights: {weights} is no file of weights as `ptychostream train` writes them: {error}"
        ) from error
    return card


def model_id(config: Config) -> str:
    """Returns the version of the network's weights, of an ensemble that of its mean, "" without a network."""
    section = config.network
    if section.weights is None:
        return ""
    paths = (section.weights, *section.members) if section.disagreement == "ensemble" else (section.weights,)
    model_ids = [str(read_card(path).get("sha256", ""))[:12] for path in paths]
    return ensemble_id(model_ids) if len(model_ids) > 1 else model_ids[0]


def error_model(config: Config) -> ErrorModel:
    """Returns how the error bars of the network's mosaics are made."""
    return ErrorModel(**model_card(config).get("error_model", {}))
