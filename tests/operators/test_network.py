import numpy as np
import pytest
import torch

from operators.forward import simulate_counts
from operators.network_interface import UNIFORM_PHASE_SIGMA, illuminate
from operators.objects import object_from_texture, texture
from operators.physics_net import PhysicsNet, PhysicsNetConfig, compare, first_estimate
from operators.predict import Predictor
from operators.probe import with_power, zone_plate_probe

PHOTONS = 4e5


@pytest.fixture(scope="module")
def probe() -> np.ndarray:
    return with_power(zone_plate_probe(64, 12, 14)[None], PHOTONS)


@pytest.fixture(scope="module")
def patterns(probe: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    object_ = object_from_texture(texture("voronoi", (128, 128), rng))
    return simulate_counts(object_, probe, rng.integers(0, 64, (7, 2)), rng).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> PhysicsNet:
    """A network whose every weight matters, as after a training."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = PhysicsNet(widths=(8, 16))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    network.largest_intensity.fill_(1.0)
    return network.eval()


def test_the_prediction_of_a_pattern_does_not_depend_on_its_batch_mates(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    predictor = Predictor(network, probe, batch_size=4)
    together = predictor.predict(patterns)
    for index in range(len(patterns)):
        alone = predictor.predict(patterns[index : index + 1])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[index])


def test_the_predictor_runs_the_network_it_was_given(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    patches, sigma = Predictor(network, probe, batch_size=4).predict(patterns)
    with torch.inference_mode():
        prediction = network(torch.from_numpy(patterns) / PHOTONS, illuminate(torch.from_numpy(probe[0])))
    np.testing.assert_allclose(patches, prediction.patches.numpy(), atol=1e-4)
    np.testing.assert_allclose(sigma, prediction.log_sigma.exp().numpy(), rtol=1e-3)
    assert patches.dtype == np.complex64
    assert sigma.dtype == np.float32


def test_bfloat16_changes_patches_little(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    exact, _ = Predictor(network, probe).predict(patterns)
    fast, _ = Predictor(network, probe, dtype=torch.bfloat16).predict(patterns)
    assert 0 < np.abs(fast - exact).max() < 0.02 * np.abs(exact).max()


def test_patches_depend_on_absolute_flux(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    bright, _ = Predictor(network, probe).predict(patterns)
    attenuated, _ = Predictor(network, probe).predict(patterns / 4)
    in_disc = np.abs(probe[0]) > 0.5 * np.abs(probe[0]).max()
    assert np.abs(attenuated[:, in_disc]).mean() < 0.9 * np.abs(bright[:, in_disc]).mean()


def test_probe_and_patterns_scaled_together_give_the_same_patches(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    patches, _ = Predictor(network, probe).predict(patterns)
    scaled, _ = Predictor(network, 10 * probe).predict(100 * patterns)
    np.testing.assert_allclose(scaled, patches, atol=1e-3)


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


def test_inputs_beyond_the_trained_range_are_clamped(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    predictor = Predictor(network, probe)
    hot, hotter = patterns[:1].copy(), patterns[:1].copy()
    hot[0, 5, 7], hotter[0, 5, 7] = 2 * PHOTONS, 1e6 * PHOTONS
    for one, other in zip(predictor.predict(hot), predictor.predict(hotter), strict=True):
        np.testing.assert_array_equal(one, other)


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


def test_sigma_is_that_of_a_uniform_phase_where_the_network_does_not_look(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    _, sigma = Predictor(network, probe).predict(patterns)
    assert sigma[:, 0, 0] == pytest.approx(UNIFORM_PHASE_SIGMA)
    assert (sigma > 0).all()


def test_calibration_scales_sigma(network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray) -> None:
    before = Predictor(network, probe)
    network.sigma_scale.fill_(2.0)
    after = Predictor(network, probe)
    network.sigma_scale.fill_(1.0)
    np.testing.assert_allclose(after.predict(patterns)[1], 2 * before.predict(patterns)[1])


def test_the_strongest_mode_is_shown_and_all_modes_give_the_flux(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    modes = np.concatenate([0.5 * np.roll(probe, 3, axis=-1), probe])
    predictor = Predictor(network, modes)
    assert predictor.photons_per_frame == pytest.approx(1.25 * PHOTONS)
    one_mode, _ = Predictor(network, probe).predict(patterns)
    many_modes, _ = predictor.predict(1.25 * patterns)
    np.testing.assert_allclose(many_modes, one_mode, atol=1e-3)


def test_no_patterns_give_no_patches(network: PhysicsNet, probe: np.ndarray) -> None:
    predictor = Predictor(network, probe)
    predictor.warm_up()
    patches, sigma = predictor.predict(np.zeros((0, 64, 64), np.float32))
    assert patches.shape == sigma.shape == (0, 64, 64)


def test_what_does_not_fit_the_network_is_refused(network: PhysicsNet, probe: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(mode, 64, 64\), got \(1, 32, 32\)"):
        Predictor(network, probe[:, :32, :32])
    with pytest.raises(ValueError, match="finite photons above 0"):
        Predictor(network, 0 * probe)
    with pytest.raises(ValueError, match=r"\(frame, 64, 64\), got \(2, 128, 128\)"):
        Predictor(network, probe).predict(np.zeros((2, 128, 128), np.float32))


@pytest.mark.parametrize("crop", [66, 41, 44])
def test_a_crop_that_the_levels_cannot_halve_is_refused(crop: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 8.*got {crop}"):
        PhysicsNetConfig(n_pixels=64, crop=crop, widths=(8, 16, 32), unshuffle=2)
