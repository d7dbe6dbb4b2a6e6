import numpy as np
import pytest
import torch

from operators.network.losses import LOSSES, amplitude_phase_error, squared_error, unwrap

SHAPE = (3, 24, 20)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def weights() -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 20), indexing="ij")
    bright = torch.exp(-3 * (y**2 + x**2))
    return (bright / bright.sum()).expand(SHAPE)


def objects(rng: np.random.Generator, largest_phase: float) -> torch.Tensor:
    """Smooth objects whose phase spans `largest_phase`."""
    y, x = np.meshgrid(np.linspace(0, 1, 24), np.linspace(0, 1, 20), indexing="ij")
    tilts = rng.uniform(0.5, 1, (2, 3, 1, 1))
    phase = largest_phase * (tilts[0] * y + tilts[1] * x) / 2
    amplitude = 0.7 + 0.2 * np.sin(5 * y + tilts[0])
    return torch.from_numpy((amplitude * np.exp(1j * phase)).astype(np.complex64))


@pytest.mark.parametrize("span", [2.0, 20.0, 60.0])
def test_unwrapping_is_that_of_numpy(rng: np.random.Generator, span: float) -> None:
    wrapped = objects(rng, span).angle()
    expected = np.unwrap(np.unwrap(wrapped.numpy(), axis=-2), axis=-1)
    np.testing.assert_allclose(unwrap(wrapped).numpy(), expected, atol=1e-4)


def test_unwrapping_noise_is_that_of_numpy(rng: np.random.Generator) -> None:
    wrapped = torch.from_numpy(rng.uniform(-np.pi, np.pi, SHAPE).astype(np.float32))
    expected = np.unwrap(np.unwrap(wrapped.numpy(), axis=-2), axis=-1)
    np.testing.assert_allclose(unwrap(wrapped).numpy(), expected, atol=1e-3)


def test_unwrapped_phase_passes_its_gradient_on(rng: np.random.Generator) -> None:
    wrapped = objects(rng, 30.0).angle().double().requires_grad_()
    assert torch.autograd.gradcheck(unwrap, wrapped[:1, :5, :5].detach().requires_grad_())
    unwrap(wrapped).square().sum().backward()
    torch.testing.assert_close(wrapped.grad, 2 * unwrap(wrapped.detach()))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_ignores_the_global_phase_and_nothing_else(
    rng: np.random.Generator, weights: torch.Tensor, name: str
) -> None:
    truth, loss = objects(rng, 2.0), LOSSES[name]
    turned = truth * torch.polar(torch.ones(3, 1, 1), torch.tensor([0.3, -2.0, 3.0]).reshape(3, 1, 1))
    assert loss(turned, truth, weights) == pytest.approx(0, abs=1e-9)
    assert loss(1.1 * truth, truth, weights) > 1e-3
    assert loss(truth.conj(), truth, weights) > 1e-3


def test_a_phase_of_many_turns_is_compared_without_its_jumps(
    rng: np.random.Generator, weights: torch.Tensor
) -> None:
    truth = objects(rng, 30.0)
    slightly_off = truth * torch.polar(torch.ones(SHAPE), 0.1 * truth.abs())
    expected = ((0.1 * truth.abs()) - (weights * 0.1 * truth.abs()).sum((-2, -1), keepdim=True)).square()
    error = amplitude_phase_error(slightly_off, truth, weights)
    assert error == pytest.approx(float((weights * expected).sum((-2, -1)).mean()), rel=1e-2)


def test_descending_the_amplitude_phase_loss_reaches_the_truth(
    rng: np.random.Generator, weights: torch.Tensor
) -> None:
    truth = objects(rng, 4.0)
    estimate = torch.ones(SHAPE, dtype=torch.complex64, requires_grad=True)
    optimiser = torch.optim.Adam([estimate], lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        amplitude_phase_error(estimate, truth, weights).backward()
        optimiser.step()
    assert squared_error(estimate.detach(), truth, weights) < 1e-3
