import numpy as np
import pytest
from scipy import ndimage

from operators.optics.coherence import (
    FLOWN_PX,
    blurred_probe,
    flown_probe,
    line_of_travel,
    mixed_probe,
    partially_coherent_probe,
    starting_modes,
)
from operators.optics.forward import intensities
from operators.optics.probe import probe_modes, with_power, zone_plate_probe

N = 64
PROBE = with_power(zone_plate_probe(N, 12.0, 14.0)[None], 1e4)


def intensity(probe: np.ndarray) -> np.ndarray:
    return np.square(np.abs(probe)).sum(axis=0)


def sample() -> np.ndarray:
    rng = np.random.default_rng(0)
    thickness = ndimage.gaussian_filter(rng.standard_normal((2 * N, 2 * N)), 2.0)
    return np.exp(1j * thickness / thickness.std()).astype(np.complex64)


def patch(object_: np.ndarray, row: float, column: float) -> np.ndarray:
    corner = round(row), round(column)
    return object_[corner[0] : corner[0] + N, corner[1] : corner[1] + N]


MIXTURES = [
    pytest.param(lambda n: blurred_probe(PROBE, 1.5, n), id="blurred"),
    pytest.param(lambda n: partially_coherent_probe(PROBE, 12.0, n), id="partially coherent"),
    pytest.param(lambda n: flown_probe(PROBE, (0.0, 6.0), n), id="flown"),
    pytest.param(
        lambda n: mixed_probe(PROBE, n, coherence_px=30.0, travel_px=(2.0, 0.0)), id="several causes"
    ),
]


@pytest.mark.parametrize("mixture", MIXTURES)
def test_modes_are_orthogonal_of_the_same_power_and_strongest_first(mixture) -> None:
    modes = mixture(4)
    assert modes.shape == (4, N, N)
    assert modes.dtype == np.complex64
    flat = modes.reshape(4, -1)
    overlaps = np.abs(flat.conj() @ flat.T)
    powers = np.diag(overlaps)
    assert powers.sum() == pytest.approx(1e4, rel=1e-4)
    assert (np.diff(powers) < 1e-6 * powers[0]).all()
    assert 0.02 < powers[1] / powers.sum() < 0.4
    assert np.abs(overlaps - np.diag(powers)).max() < 1e-3 * powers.sum()


def test_a_shaking_probe_lights_what_its_smeared_intensity_lights() -> None:
    expected = ndimage.gaussian_filter(intensity(PROBE), 1.5, mode="wrap")
    np.testing.assert_allclose(intensity(blurred_probe(PROBE, 1.5, 49)), expected, atol=0.03 * expected.max())


def test_a_shaking_probe_gives_the_mean_of_the_patterns_at_the_places_it_visits() -> None:
    rng, object_ = np.random.default_rng(1), sample()
    blurred = intensities(blurred_probe(PROBE, 2.0, 30), patch(object_, 32, 32)[None])[0]
    places = 32 + rng.normal(0, 2.0, (4000, 2)).round()  # whole pixels widen the distribution by 1/12
    visited = np.stack([patch(object_, *place) for place in places])
    mean = intensities(PROBE, visited).mean(axis=0)
    still = intensities(PROBE, patch(object_, 32, 32)[None])[0]
    error, difference = np.abs(blurred - mean).sum(), np.abs(blurred - still).sum()
    assert error < 0.15 * difference


def test_partial_coherence_smears_the_pattern_and_not_the_illumination() -> None:
    object_ = patch(sample(), 32, 32)[None]
    modes = partially_coherent_probe(PROBE, 10.0, 49)
    np.testing.assert_allclose(intensity(modes), intensity(PROBE), rtol=1e-2, atol=1e-3)
    coherent, partial = (
        np.fft.fftshift(intensities(probe, object_)[0]) for probe in (PROBE.astype(np.complex64), modes)
    )
    expected = ndimage.gaussian_filter(coherent, N / (2 * np.pi * 10.0), mode="wrap")
    assert np.abs(partial - expected).sum() < 0.03 * np.abs(coherent - expected).sum()


def test_a_flown_probe_is_smeared_along_its_way_only() -> None:
    expected = ndimage.uniform_filter1d(intensity(PROBE), 7, axis=1, mode="wrap")
    flown = intensity(flown_probe(PROBE, (0.0, 7.0), 14))
    np.testing.assert_allclose(flown, expected, atol=0.03 * expected.max())


def test_a_probe_with_every_cause_of_incoherence_is_smeared_by_all_of_them() -> None:
    modes = mixed_probe(PROBE, 49, coherence_px=20.0, travel_px=(0.0, 5.0), blur_px=1.0)
    expected = ndimage.gaussian_filter(
        ndimage.uniform_filter1d(intensity(PROBE), 5, axis=1, mode="wrap"), 1.0, mode="wrap"
    )
    np.testing.assert_allclose(intensity(modes), expected, atol=0.05 * expected.max())
    pattern, coherent = (
        np.fft.fftshift(intensities(probe, sample()[None, :N, :N])[0]) for probe in (modes, PROBE)
    )
    assert np.abs(np.diff(pattern)).sum() < 0.7 * np.abs(np.diff(coherent)).sum()


def test_a_probe_without_causes_of_incoherence_stays_as_it_is() -> None:
    assert mixed_probe(PROBE, 4) is PROBE


def test_full_coherence_leaves_the_probe_alone() -> None:
    for probe in (blurred_probe(PROBE, 0.0, 1), partially_coherent_probe(PROBE, np.inf, 1)):
        assert abs(np.vdot(probe, PROBE)) == pytest.approx(1e4, rel=1e-4)


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="coherence_px must be positive"):
        partially_coherent_probe(PROBE, 0.0, 2)
    with pytest.raises(ValueError, match="n_modes must be from 1 to 49, got 50"):
        blurred_probe(PROBE, 1.0, 50)


def test_the_line_of_travel_is_that_of_lines_flown_to_and_fro() -> None:
    rng = np.random.default_rng(0)
    senses = np.where(np.arange(100) % 20 < 10, 1.0, -1.0)
    travel = senses[:, None] * np.array([1.0, -3.0]) + rng.normal(0, 0.05, (100, 2))
    y, x = line_of_travel(travel)
    np.testing.assert_allclose(np.array([y, x]) * -np.sign(x), [1.0, -3.0], atol=0.02)
    assert line_of_travel(np.zeros((0, 2))) == (0.0, 0.0)
    assert line_of_travel(np.zeros((5, 2))) == (0.0, 0.0)


def test_modes_start_as_those_of_a_probe_that_moves_where_it_moved_far_enough() -> None:
    for travel_px, expected in (
        ((0.0, 6.0), flown_probe(PROBE, (0.0, 6.0), 3)),
        ((0.0, 0.9 * FLOWN_PX), probe_modes(PROBE[0], 3)),
    ):
        np.testing.assert_array_equal(starting_modes(PROBE, 3, travel_px), expected)
