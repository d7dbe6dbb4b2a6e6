import numpy as np
import pytest
import torch

from operators.network.interface import illuminate
from operators.network.physics_net import PhysicsNet
from operators.network.predictor import Predictor, rounding_error
from operators.patches import UNIFORM_PHASE_SIGMA, middle
from tests.helpers.operators.networks import PHOTONS, PROBE, some_network, some_patterns


@pytest.fixture(scope="module")
def probe() -> np.ndarray:
    return PROBE


@pytest.fixture(scope="module")
def patterns() -> np.ndarray:
    return some_patterns()


@pytest.fixture(scope="module")
def network() -> PhysicsNet:
    return some_network()


def test_the_prediction_of_a_pattern_does_not_depend_on_its_batch_mates(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    predictor = Predictor(network, probe, batch_size=4)
    together, others = predictor.predict(patterns), predictor.predict(patterns[::-1])
    for one, other in zip(together, others, strict=True):
        np.testing.assert_array_equal(one, other[::-1])
    for index in range(len(patterns)):
        alone = predictor.predict(patterns[index : index + 1])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], many[index], atol=1e-5)  # a run of another size


def test_the_predictor_runs_the_network_it_was_given(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    patches, sigma = Predictor(network, probe, batch_size=4, dtype=torch.float32).predict(patterns)
    with torch.inference_mode():
        prediction = network(torch.from_numpy(patterns) / PHOTONS, illuminate(torch.from_numpy(probe)))
    crop = network.config.crop
    np.testing.assert_allclose(middle(patches, crop), middle(prediction.patches.numpy(), crop), atol=1e-4)
    np.testing.assert_allclose(sigma, prediction.log_sigma.exp().numpy(), rtol=1e-3)
    assert patches.dtype == np.complex64
    assert sigma.dtype == np.float32


def test_bfloat16_changes_patches_little(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    exact, _ = Predictor(network, probe, dtype=torch.float32).predict(patterns)
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


def test_inputs_beyond_the_trained_range_are_clamped(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    predictor = Predictor(network, probe)
    hot, hotter = patterns[:1].copy(), patterns[:1].copy()
    hot[0, 5, 7], hotter[0, 5, 7] = 2 * PHOTONS, 1e6 * PHOTONS
    for one, other in zip(predictor.predict(hot), predictor.predict(hotter), strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_the_network_does_not_look_nothing_is_known(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    predictor, crop = Predictor(network, probe, batch_size=4), network.config.crop
    patches, sigma = predictor.predict(patterns)
    assert predictor.crop == crop < 64
    assert (sigma > 0).all()
    seen = predictor.submit(patterns)()
    for whole, inside in zip((patches, sigma), seen, strict=True):
        assert inside.shape == (len(patterns), crop, crop)
        np.testing.assert_array_equal(middle(whole, crop), inside)
    assert (patches[:, 0] == 1).all()
    assert sigma[:, 0] == pytest.approx(UNIFORM_PHASE_SIGMA)


def test_calibration_scales_sigma(network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray) -> None:
    before = Predictor(network, probe)
    network.sigma_scale.fill_(2.0)
    after = Predictor(network, probe)
    network.sigma_scale.fill_(1.0)
    np.testing.assert_allclose(after.submit(patterns)()[1], 2 * before.submit(patterns)()[1])


def test_calibration_may_depend_on_the_photons(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    network.sigma_exponent.fill_(-0.5)
    few, many = Predictor(network, probe), Predictor(network, 2 * probe)
    network.sigma_exponent.fill_(0.0)
    sigma_of_few, sigma_of_many = few.submit(patterns)()[1], many.submit(4 * patterns)()[1]
    np.testing.assert_allclose(sigma_of_many, sigma_of_few / 2, rtol=1e-3)


def test_the_network_is_told_all_modes_of_a_probe(network: PhysicsNet, probe: np.ndarray) -> None:
    modes = np.concatenate([0.5 * np.roll(probe, 3, axis=-1), probe])
    patterns = some_patterns(modes)
    predictor = Predictor(network, modes, dtype=torch.float32)
    assert predictor.photons_per_frame == pytest.approx(1.25 * PHOTONS)
    with torch.inference_mode():
        shares = torch.from_numpy(patterns) / predictor.photons_per_frame
        expected = network(shares, illuminate(torch.from_numpy(modes))).patches.numpy()
    crop = network.config.crop
    patches = predictor.predict(patterns)[0]
    np.testing.assert_allclose(middle(patches, crop), middle(expected, crop), atol=1e-4)
    assert rounding_error(network, predictor, modes) < 1e-5


def test_pixels_that_are_masked_tell_nothing(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    mask = np.ones((64, 64), bool)
    mask[3:6] = mask[:, 60] = False
    predictor, whole = (
        Predictor(network, probe, mask=mask),
        Predictor(network, probe, mask=np.ones_like(mask)),
    )
    shown, hidden = predictor.predict(patterns), predictor.predict(np.where(mask, patterns, 0))
    for one, other in zip(shown, hidden, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(shown[0] - whole.predict(patterns)[0]).max() > 1e-3


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
    for mask in (np.ones((32, 32), bool), np.zeros((64, 64), bool)):
        with pytest.raises(ValueError, match=r"a mask \(64, 64\) like the patterns, True .* valid pixels"):
            Predictor(network, probe, mask=mask)
    with pytest.raises(ValueError, match=r"\(frame, 64, 64\), got \(2, 128, 128\)"):
        Predictor(network, probe).predict(np.zeros((2, 128, 128), np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rounding_error_is_that_of_the_fast_path(
    network: PhysicsNet, probe: np.ndarray, dtype: torch.dtype
) -> None:
    error = rounding_error(network, Predictor(network, probe, batch_size=2, dtype=dtype), probe)
    assert 0 < error < 1e-5 if dtype == torch.float32 else 1e-4 < error < 0.02


@pytest.mark.cuda
def test_a_recorded_run_on_a_gpu_gives_what_it_gave_piece_by_piece(
    network: PhysicsNet, probe: np.ndarray, patterns: np.ndarray
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    predictor = Predictor(network, probe, batch_size=4, device="cuda")
    launched = predictor.predict(patterns)
    predictor.warm_up()
    for _ in range(2):
        for recorded, expected in zip(predictor.predict(patterns), launched, strict=True):
            np.testing.assert_array_equal(recorded, expected)
    assert rounding_error(network, predictor, probe) < 0.02
