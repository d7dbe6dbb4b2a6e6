import numpy as np
import pytest
import torch

from operators.network_interface import illuminate
from operators.physics_net import PhysicsNet, PhysicsNetConfig, compare, first_estimate
from tests.operators.networks import PHOTONS, PROBE, some_network, some_patterns


@pytest.fixture(scope="module")
def probe() -> np.ndarray:
    return PROBE


@pytest.fixture(scope="module")
def patterns() -> np.ndarray:
    return some_patterns()


@pytest.fixture(scope="module")
def network() -> PhysicsNet:
    return some_network()


def test_the_open_beam_is_seen_as_a_flat_object(probe: np.ndarray) -> None:
    illumination = illuminate(torch.from_numpy(probe[0]))
    amplitudes = illumination.open_far_field.abs()
    estimate = first_estimate(amplitudes, illumination)
    np.testing.assert_allclose(estimate.numpy(), 1, atol=1e-3)
    contradictions = compare(torch.ones_like(estimate), amplitudes, illumination, n_steps=2)[:, 2:6]
    np.testing.assert_allclose(contradictions.numpy(), 0, atol=1e-2)


def test_each_step_of_error_reduction_fits_the_pattern_better(
    probe: np.ndarray, patterns: np.ndarray
) -> None:
    illumination = illuminate(torch.from_numpy(probe[0]))
    amplitudes = (torch.from_numpy(patterns) / PHOTONS).sqrt()
    flat = torch.ones_like(amplitudes, dtype=torch.complex64)
    first = first_estimate(amplitudes, illumination)
    correction = compare(first, amplitudes, illumination, n_steps=4)[:, 2:4] / 5
    better = first + torch.complex(correction[:, 0], correction[:, 1])

    def misfit(object_: torch.Tensor) -> float:
        far_field = torch.fft.fft2(illumination.probe * object_, norm="ortho")
        return float((far_field.abs() - amplitudes).square().sum())

    assert misfit(better) < misfit(first) < misfit(flat)


def test_one_probe_for_all_is_the_same_as_one_probe_each(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    intensities, one = torch.from_numpy(patterns[:2]) / PHOTONS, torch.from_numpy(probe[0])
    with torch.inference_mode():
        shared = network(intensities, illuminate(one))
        each = network(intensities, illuminate(torch.stack([one, one])))
    torch.testing.assert_close(shared.patches, each.patches)


def test_training_widens_the_trained_range(probe: np.ndarray, patterns: np.ndarray) -> None:
    network = PhysicsNet(widths=(8, 16)).train()
    intensities = torch.from_numpy(patterns) / PHOTONS
    network(intensities, illuminate(torch.from_numpy(probe[0])))
    assert network.largest_intensity == intensities.max()


def test_the_sigma_loss_leaves_the_estimate_alone(probe: np.ndarray, patterns: np.ndarray) -> None:
    network = PhysicsNet(widths=(8, 16)).train()
    prediction = network(torch.from_numpy(patterns) / PHOTONS, illuminate(torch.from_numpy(probe[0])))
    prediction.log_sigma.sum().backward()
    touched = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert touched == {f"sigma_head.{name}" for name in ("0.weight", "0.bias", "2.weight", "2.bias")}


@pytest.mark.parametrize("n_stages", [1, 3])
def test_every_stage_but_the_last_leaves_a_draft(
    n_stages: int, probe: np.ndarray, patterns: np.ndarray
) -> None:
    network = PhysicsNet(widths=(8, 16), n_stages=n_stages).train()
    illumination = illuminate(torch.from_numpy(probe[0]))
    prediction = network(torch.from_numpy(patterns) / PHOTONS, illumination)
    assert len(prediction.drafts) == n_stages - 1
    losses = [patches.abs().square().sum() for patches in (*prediction.drafts, prediction.patches)]
    sum(losses).backward()
    assert all(stage.head.weight.grad.abs().sum() > 0 for stage in network.stages)


@pytest.mark.parametrize("crop", [66, 41, 44])
def test_a_crop_that_the_levels_cannot_halve_is_refused(crop: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 8.*got {crop}"):
        PhysicsNetConfig(n_pixels=64, crop=crop, widths=(8, 16, 32), unshuffle=2)
