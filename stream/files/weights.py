"""Weights of a network with their model card, on disk as safetensors.

The card lies in the file's metadata, so that weights never travel without it, and beside it as JSON, to be
read by people.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import torch
from safetensors.torch import save as serialise

from operators.network.interface import Network
from operators.network.registry import NETWORKS
from stream.atomic import replacing

LARGEST_FILE_BYTES = 64 * 2**20  # PtychoNet takes 31 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What must be known about weights in order to use and to judge them.

    Parameters
    ----------
    name : str
        Of the weights, for people.
    network : str
        Name in `operators.network.registry.NETWORKS`.
    config : dict
        Keyword arguments of the network.
    recipe : dict
        The recipe that trained it, complete.
    seed : int
        Of the training.
    data : str
        One sentence on what it was trained with.
    probe : dict of (float, float)
        Least and most of each radius it was trained for, pixels.
    photons_per_frame : (float, float)
        Least and most it was trained for.
    metrics : dict of float
        Measured on held-out objects.
    error_model : dict of float
        Of `operators.mosaic.error_bars.ErrorModel`, fitted on held-out objects; empty for its defaults.
    transmission : float
        Share of the light that the objects of the training let through on average.
    parent : str
        `model_id` of the weights that the training began with or that were tuned during a scan, "" for none.
    tuned_on : str
        The scan, and how many of its frames, where these were tuned during one.
    date : str
        End of the training, ISO 8601.
    sha256 : str
        Of the weights; filled in by `save_network`.
    """

    name: str
    network: str
    config: dict[str, Any]
    recipe: dict[str, Any]
    seed: int
    data: str
    probe: dict[str, tuple[float, float]]
    photons_per_frame: tuple[float, float]
    metrics: dict[str, float] = field(default_factory=dict)
    error_model: dict[str, float] = field(default_factory=dict)
    transmission: float = 1.0
    parent: str = ""
    tuned_on: str = ""
    date: str = ""
    sha256: str = ""

    @property
    def model_id(self) -> str:
        """The version published with every result: the first 12 digits of the hash of the weights."""
        return self.sha256[:12]


def save_network(path: Path, network: Network, card: ModelCard) -> ModelCard:
    """Write weights with their card, and the card beside them; return the card with the hash filled in.

    The weights are replaced in one step: a reader sees the old or the new ones.

    Raises
    ------
    ValueError
        If the weights take more than 64 MiB, far more than any network here.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    n_bytes = sum(tensor.nbytes for tensor in tensors.values())
    if n_bytes > LARGEST_FILE_BYTES:
        raise ValueError(
            f"weights of {card.name!r} take {n_bytes} bytes, at most {LARGEST_FILE_BYTES} are stored"
        )
    card = replace(card, sha256=weights_hash(tensors))
    readable = json.dumps(asdict(card), indent=2)
    with replacing(path) as partial:
        partial.write_bytes(serialise(tensors, metadata={"card": readable}))
    with replacing(path.with_suffix(".json")) as partial:
        partial.write_text(readable + "\n", encoding="utf-8")
    return card


def load_network(path: Path) -> tuple[Network, ModelCard]:
    """Return the network of a weights file, ready to predict, and its card.

    Raises
    ------
    ValueError
        If the file is no weights file of ours, names an unknown network, does not fit it, or was changed
        after saving.
    FileNotFoundError
        If there is no such file.
    """
    tensors, metadata = _read_tensors(path)
    card = _read_card(path, metadata)
    found = weights_hash(tensors)
    if found != card.sha256:
        raise ValueError(
            f"{path}: weights hash to {found[:12]}, the card says {card.model_id}; fetch the file again"
        )
    if card.network not in NETWORKS:
        raise ValueError(f"{path}: unknown network {card.network!r}; this version has {', '.join(NETWORKS)}")
    try:
        network = NETWORKS[card.network](**card.config)
        network.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: weights do not fit the network {card.network!r}: {error}") from error
    return network.eval(), card


def weights_hash(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values, whatever the order of the tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}; train some with `ptychostream train` or correct the path"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _read_card(path: Path, metadata: dict[str, str]) -> ModelCard:
    if "card" not in metadata:
        raise ValueError(
            f"{path} has no model card in its metadata; it was not written by `ptychostream train`"
        )
    try:
        return msgspec.json.decode(metadata["card"], type=ModelCard)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: the model card cannot be read: {error}") from error
