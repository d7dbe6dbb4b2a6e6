import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from operators.network.physics_net import PhysicsNet
from stream.files.weights import ModelCard, load_network, save_network, weights_hash

CONFIG = {"n_pixels": 16, "crop": 16, "widths": [4, 8], "unshuffle": 1}
CARD = ModelCard(
    name="small",
    network="physics",
    config=CONFIG,
    recipe={"n_steps": 3},
    seed=7,
    data="three patterns",
    probe={"disc_radius_px": (3.0, 4.0)},
    photons_per_frame=(1e4, 1e6),
    metrics={"patch_c": 0.5},
    date="2025-01-01T00:00:00+00:00",
)


@pytest.fixture
def network() -> PhysicsNet:
    return PhysicsNet(**CONFIG)


@pytest.fixture
def saved(tmp_path: Path, network: PhysicsNet) -> Path:
    save_network(tmp_path / "small.safetensors", network, CARD)
    return tmp_path / "small.safetensors"


def rewrite(path: Path, tensors: dict[str, torch.Tensor], card: ModelCard | None) -> None:
    metadata = None if card is None else {"card": json.dumps({f: getattr(card, f) for f in card.__slots__})}
    save_file(tensors, path, metadata)


def test_weights_and_card_come_back_as_saved(saved: Path, network: PhysicsNet) -> None:
    loaded, card = load_network(saved)
    assert card == replace(CARD, sha256=weights_hash(network.state_dict()))
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


def test_the_card_lies_beside_the_weights_for_people_to_read(saved: Path) -> None:
    readable = json.loads(saved.with_suffix(".json").read_text())
    assert readable["sha256"] == load_network(saved)[1].sha256
    assert readable["metrics"] == {"patch_c": 0.5}


def test_the_model_id_names_the_weights_and_nothing_else(tmp_path: Path, network: PhysicsNet) -> None:
    first = save_network(tmp_path / "a.safetensors", network, CARD)
    renamed = save_network(tmp_path / "b.safetensors", network, replace(CARD, name="other"))
    network.sigma_scale.fill_(1.5)
    recalibrated = save_network(tmp_path / "c.safetensors", network, CARD)
    assert first.model_id == renamed.model_id != recalibrated.model_id
    assert len(first.model_id) == 12
    assert int(first.model_id, 16) >= 0


def test_a_failed_save_leaves_the_old_weights(saved: Path, network: PhysicsNet) -> None:
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="at most 67108864"):
        save_network(saved, PhysicsNet(n_pixels=64, widths=(512, 1024)), CARD)
    assert saved.read_bytes() == before


def test_absent_weights_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*absent\.safetensors; train some"):
        load_network(tmp_path / "absent.safetensors")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    path.write_text("not weights at all")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_network(path)


def test_weights_without_a_card_are_refused(saved: Path) -> None:
    rewrite(saved, load_file(saved), None)
    with pytest.raises(ValueError, match="has no model card"):
        load_network(saved)


def test_a_card_that_cannot_be_read_names_the_field(saved: Path) -> None:
    save_file(load_file(saved), saved, {"card": '{"name": 5}'})
    with pytest.raises(ValueError, match=r"card cannot be read: Expected `str`, got `int` - at `\$\.name`"):
        load_network(saved)


def test_changed_weights_are_noticed(saved: Path) -> None:
    _, card = load_network(saved)
    tensors = load_file(saved)
    tensors["sigma_scale"] += 1
    rewrite(saved, tensors, card)
    with pytest.raises(ValueError, match=f"the card says {card.model_id}"):
        load_network(saved)


def test_an_unknown_network_is_refused_with_the_known_ones(saved: Path) -> None:
    _, card = load_network(saved)
    rewrite(saved, load_file(saved), replace(card, network="transformer"))
    with pytest.raises(ValueError, match="unknown network 'transformer'; this version has physics"):
        load_network(saved)


@pytest.mark.parametrize("change", [{"widths": [4, 16]}, {"depth": 3}, {"crop": 15}])
def test_weights_that_do_not_fit_their_network_are_refused(saved: Path, change: dict[str, object]) -> None:
    _, card = load_network(saved)
    rewrite(saved, load_file(saved), replace(card, config=CONFIG | change))
    with pytest.raises(ValueError, match="do not fit the network 'physics'"):
        load_network(saved)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_weights_that_were_cut_are_named(saved: Path, kept: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=f"^{saved} is not a safetensors file: "):
        load_network(saved)
