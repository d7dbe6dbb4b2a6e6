"""What holds for every network of the registry."""

from typing import Any

import numpy as np
import pytest
import torch

from operators.network.interface import Network, channels_last, illuminate, joined
from operators.network.losses import LOSSES, squared_error, variation
from operators.network.predictor import Predictor
from operators.network.registry import NETWORKS
from operators.optics.probe import with_power, zone_plate_probe
from operators.patches import middle

PHOTONS = 4e5
SMALL: dict[str, dict[str, Any]] = {
    "physics": {"n_pixels": 32, "crop": 24, "widths": (16, 32), "unshuffle": 1},
    "ptychonet": {"n_pixels": 32, "widths": (8, 16, 32, 32, 32)},
    "ptychonn": {"n_pixels": 32, "widths": (16, 32, 32)},
}


def small(name: str) -> Network:
    torch.manual_seed(0)
    return NETWORKS[name](**SMALL[name])


def discs(n_frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Objects of one disc each, their patterns as shares of the flux, and the probe."""
    generator = torch.Generator().manual_seed(seed)
    probe = torch.from_numpy(zone_plate_probe(32, 6, 7))
    grid = torch.arange(32.0)
    row, column = (10 + 12 * torch.rand(2, n_frames, 1, 1, generator=generator)).unbind()
    inside = torch.sigmoid(2 * (5 - torch.hypot(grid[:, None] - row, grid - column)))
    objects = torch.polar(torch.exp(-0.3 * inside), -1.2 * inside)
    far_field = torch.fft.fft2(probe * objects, norm="ortho").abs().square()
    probe = probe[None]
    return objects, torch.poisson(PHOTONS * far_field, generator) / PHOTONS, probe


@pytest.mark.parametrize(("name", "millions"), [("physics", 0.55), ("ptychonet", 7.9), ("ptychonn", 1.16)])
def test_the_networks_have_the_sizes_they_are_known_for(name: str, millions: float) -> None:
    n_parameters = sum(parameter.numel() for parameter in NETWORKS[name]().parameters())
    assert n_parameters / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_and_gives_the_same(name: str) -> None:
    objects, intensities, probe = discs(3)
    prediction = small(name).train()(intensities, illuminate(probe))
    for patches in (prediction.patches, *prediction.drafts):
        assert patches.shape == objects.shape
        assert patches.dtype == torch.complex64
    assert prediction.log_sigma.shape == objects.shape
    assert torch.isfinite(prediction.log_sigma).all()


@pytest.mark.parametrize("name", ["ptychonet", "ptychonn"])
def test_networks_that_see_the_pattern_alone_ignore_the_probe(name: str) -> None:
    _, intensities, probe = discs(3)
    network = small(name).train()
    network(intensities, illuminate(probe))
    network.eval()
    one, other = (network(intensities, illuminate(p)).patches for p in (probe, probe.roll(3, -1)))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_sigma_loss_of_every_network_leaves_its_estimate_alone(name: str) -> None:
    _, intensities, probe = discs(3)
    network = small(name).train()
    network(intensities, illuminate(probe)).log_sigma.sum().backward()
    touched = {name.split(".")[0] for name, part in network.named_parameters() if part.grad is not None}
    assert touched == {"sigma_head"}


def test_frames_of_probes_with_more_and_with_fewer_modes_go_into_one_batch() -> None:
    objects, intensities, probe = discs(3)
    two_modes = torch.cat([probe, 0.5 * probe.roll(3, -1)])
    one, two = (illuminate(modes.expand(3, *modes.shape)) for modes in (probe, two_modes))
    network = small("physics").eval()
    network.largest_intensity.fill_(1.0)
    with torch.inference_mode():
        together = network(torch.cat([intensities] * 2), joined(one, two)).patches
        apart = [network(intensities, illumination).patches for illumination in (one, two)]
    torch.testing.assert_close(together, torch.cat(apart))
    assert together.shape == (6, *objects.shape[1:])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_predictor_runs_what_was_trained(name: str) -> None:
    _, intensities, probe = discs(8)
    network = small(name).train()
    for _ in range(5):
        network(intensities, illuminate(probe))  # the norms of batches are those of these patterns
    network.eval()
    patterns = (PHOTONS * intensities).numpy()
    modes = with_power(probe.numpy(), PHOTONS)
    predictor = Predictor(network, modes, batch_size=4, dtype=torch.float32)
    with torch.inference_mode():
        expected = network(intensities, illuminate(probe))
    patches, seen = (
        middle(it, predictor.crop) for it in (predictor.predict(patterns)[0], expected.patches.numpy())
    )
    np.testing.assert_allclose(patches, seen, atol=1e-4)
    np.testing.assert_allclose(predictor.predict(patterns)[1], expected.log_sigma.exp().numpy(), rtol=1e-3)


N_STEPS = {"physics": 60, "ptychonet": 150, "ptychonn": 150}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_network_learns_where_a_disc_is(name: str, loss: str) -> None:
    network = channels_last(small(name)).train()
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for step in range(N_STEPS[name]):
        objects, intensities, probe = discs(16, seed=step)
        weights = probe.abs().square().expand(objects.shape)
        optimiser.zero_grad()
        LOSSES[loss](network(intensities, illuminate(probe)).patches, objects, weights).backward()
        optimiser.step()
    objects, intensities, probe = discs(64, seed=10**6)
    weights = probe.abs().square().expand(objects.shape)
    with torch.inference_mode():
        patches = network.eval()(intensities, illuminate(probe)).patches
    assert (squared_error(patches, objects, weights) / variation(objects, weights)).sqrt() < 0.7


@pytest.mark.parametrize("name", ["ptychonet", "ptychonn"])
def test_patterns_that_the_levels_cannot_halve_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"n_pixels must be a multiple of \d+.*got 36"):
        NETWORKS[name](**SMALL[name] | {"n_pixels": 36})
