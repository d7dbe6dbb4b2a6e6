from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import unitary_group

from operators.network.interface import Illumination, illuminate
from operators.network.physics_net import (
    PhysicsNet,
    PhysicsNetConfig,
    compare,
    first_estimate,
    reduce_error,
    reduce_error_to_noise,
)
from operators.optics.coherence import blurred_probe
from tests.helpers.operators.networks import PHOTONS, PROBE, some_network, some_patterns


@pytest.fixture(scope="module", params=["coherent", "partly coherent"])
def probe(request: pytest.FixtureRequest) -> np.ndarray:
    return PROBE if request.param == "coherent" else blurred_probe(PROBE, 1.2, 4)


@pytest.fixture(scope="module")
def patterns(probe: np.ndarray) -> np.ndarray:
    return some_patterns(probe)


@pytest.fixture(scope="module")
def network() -> PhysicsNet:
    return some_network()


def test_the_open_beam_is_seen_as_a_flat_object(probe: np.ndarray) -> None:
    illumination = illuminate(torch.from_numpy(probe))
    amplitudes = illumination.open_beam.sqrt()
    estimate = first_estimate(amplitudes, illumination)
    np.testing.assert_allclose(estimate.numpy(), 1, atol=1e-3)
    contradictions = compare(torch.ones_like(estimate), amplitudes, illumination, n_steps=2)[:, 2:6]
    np.testing.assert_allclose(contradictions.numpy(), 0, atol=1e-2)


def test_each_step_of_error_reduction_fits_the_pattern_better(
    probe: np.ndarray, patterns: np.ndarray
) -> None:
    illumination = illuminate(torch.from_numpy(probe))
    amplitudes = (torch.from_numpy(patterns) / PHOTONS).sqrt()
    flat = torch.ones_like(amplitudes, dtype=torch.complex64)
    first = first_estimate(amplitudes, illumination)
    correction = compare(first, amplitudes, illumination, n_steps=4)[:, 2:4] / 5
    better = first + torch.complex(correction[:, 0], correction[:, 1])

    misfits = [misfit(object_, amplitudes, illumination) for object_ in (better, first, flat)]
    assert misfits == sorted(misfits)


def test_last_steps_bring_the_patch_of_the_same_weights_closer_to_its_pattern(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    intensities = torch.from_numpy(patterns) / PHOTONS
    illumination = illuminate(torch.from_numpy(probe))
    patches = []
    for n_last_steps in range(4):
        same = PhysicsNet(**asdict(network.config) | {"n_last_steps": n_last_steps}).eval()
        same.load_state_dict(network.state_dict())
        with torch.inference_mode():
            patches.append(same(intensities, illumination).patches)
    with torch.inference_mode():
        assert torch.equal(patches[0], network(intensities, illumination).patches)
    misfits = [misfit(object_, intensities.sqrt(), illumination) for object_ in patches]
    assert misfits == sorted(misfits, reverse=True)
    assert misfits[3] < 0.9 * misfits[0]


def test_last_steps_are_not_taken_in_training(probe: np.ndarray, patterns: np.ndarray) -> None:
    intensities = torch.from_numpy(patterns) / PHOTONS
    illumination = illuminate(torch.from_numpy(probe))
    plain, other = (PhysicsNet(widths=(8, 16), n_last_steps=n).train() for n in (0, 3))
    other.load_state_dict(plain.state_dict())
    patches = [network(intensities, illumination).patches for network in (plain, other)]
    torch.testing.assert_close(*patches)


def test_an_estimate_as_good_as_the_truth_is_left_alone_and_a_worse_one_is_not(probe: np.ndarray) -> None:
    rng, photons = np.random.default_rng(0), 1e4
    phase = gaussian_filter(rng.standard_normal((4, 64, 64)), (0, 4, 4), mode="wrap")
    truth = torch.from_numpy(np.exp(1j * phase / phase.std()).astype(np.complex64))
    illumination = illuminate(torch.from_numpy(probe), photons)
    expected = pattern_of(truth, illumination)
    amplitudes = torch.from_numpy(rng.poisson(expected * photons) / photons).float().sqrt()

    def step_over_error_reduction(estimate: torch.Tensor) -> float:
        moved, full = (
            (better(estimate, amplitudes, illumination, 1) - estimate).abs().square().sum()
            for better in (reduce_error_to_noise, reduce_error)
        )
        return float((moved / full).sqrt())

    assert step_over_error_reduction(truth) < 0.2
    assert step_over_error_reduction(torch.ones_like(truth)) > 0.9


def misfit(object_: torch.Tensor, amplitudes: torch.Tensor, illumination: Illumination) -> float:
    """Sum of squares of what the amplitudes of an object's patterns lack."""
    return float((pattern_of(object_, illumination).sqrt() - amplitudes).square().sum())


def pattern_of(object_: torch.Tensor, illumination: Illumination) -> torch.Tensor:
    """What all modes make of an object, added up."""
    far_fields = torch.fft.fft2(illumination.modes * object_[:, None], norm="ortho")
    return far_fields.abs().square().sum(1)


def test_one_probe_for_all_is_the_same_as_one_probe_each(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    intensities, one = torch.from_numpy(patterns[:2]) / PHOTONS, torch.from_numpy(probe)
    with torch.inference_mode():
        shared = network(intensities, illuminate(one))
        each = network(intensities, illuminate(torch.stack([one, one])))
    torch.testing.assert_close(shared.patches, each.patches)


def test_modes_that_are_mixed_make_the_same_patterns_and_so_the_same_patches(
    network: PhysicsNet, patterns: np.ndarray, probe: np.ndarray
) -> None:
    """Which modes a partly coherent beam is written as is a choice, and none of the sample's."""
    dark = np.concatenate([probe, np.zeros_like(PROBE)])
    mixing = unitary_group.rvs(len(dark), random_state=0).astype(np.complex64)
    mixed = np.einsum("nm,myx->nyx", mixing, dark)
    with torch.inference_mode():
        patches = [
            network(torch.from_numpy(patterns) / PHOTONS, illuminate(torch.from_numpy(modes))).patches
            for modes in (probe, dark, mixed)
        ]
    for same in patches[1:]:
        torch.testing.assert_close(same, patches[0], atol=1e-3, rtol=0)


def test_training_widens_the_trained_range(probe: np.ndarray, patterns: np.ndarray) -> None:
    network = PhysicsNet(widths=(8, 16)).train()
    intensities = torch.from_numpy(patterns) / PHOTONS
    network(intensities, illuminate(torch.from_numpy(probe)))
    assert network.largest_intensity == intensities.max()


def test_the_sigma_loss_leaves_the_estimate_alone(probe: np.ndarray, patterns: np.ndarray) -> None:
    network = PhysicsNet(widths=(8, 16)).train()
    prediction = network(torch.from_numpy(patterns) / PHOTONS, illuminate(torch.from_numpy(probe)))
    prediction.log_sigma.sum().backward()
    touched = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert touched == {f"sigma_head.{name}" for name in ("0.weight", "0.bias", "2.weight", "2.bias")}


@pytest.mark.parametrize("n_stages", [1, 3])
def test_every_stage_but_the_last_leaves_a_draft(
    n_stages: int, probe: np.ndarray, patterns: np.ndarray
) -> None:
    network = PhysicsNet(widths=(8, 16), n_stages=n_stages).train()
    illumination = illuminate(torch.from_numpy(probe))
    prediction = network(torch.from_numpy(patterns) / PHOTONS, illumination)
    assert len(prediction.drafts) == n_stages - 1
    losses = [patches.abs().square().sum() for patches in (*prediction.drafts, prediction.patches)]
    sum(losses).backward()
    assert all(stage.head.weight.grad.abs().sum() > 0 for stage in network.stages)


@pytest.mark.parametrize("crop", [66, 41, 44])
def test_a_crop_that_the_levels_cannot_halve_is_refused(crop: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 8.*got {crop}"):
        PhysicsNetConfig(n_pixels=64, crop=crop, widths=(8, 16, 32), unshuffle=2)
