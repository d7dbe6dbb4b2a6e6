import numpy as np
import pytest

from operators.mosaic.error_bars import SHOWN, Dial, ErrorModel, coverage, factor_asked_for, tile_errors
from operators.mosaic.error_model_fit import fit_error_model

N = 20_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def turn_up(dial, rng, n_tiles, *, error=0.1, sigma=0.1, reference=0.0, n=400):
    """Show the dial tiles whose errors are `error` large and said to be `sigma`."""
    for _ in range(n_tiles):
        differences = rng.normal(0, np.hypot(SHOWN * error, reference), n)
        dial.add(differences, np.full(n, sigma), np.full(n, reference))
    return dial


def test_coverage_is_that_of_a_normal_where_sigma_is_true(rng):
    sigma = rng.uniform(0.1, 1, N)
    found = coverage(rng.normal(0, sigma), sigma)
    assert found.within68 == pytest.approx(0.683, abs=0.01)
    assert found.within95 == pytest.approx(0.950, abs=0.005)
    assert coverage(np.array([-3.0, 0.5]), np.array([1.0, 1.0])) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no errors"):
        coverage(np.zeros(0), np.zeros(0))


def test_the_fit_finds_what_the_errors_are_made_of(rng):
    terms = rng.exponential(1, (4, 5 * N)) * np.array([0.01, 0.02, 0.005, 0.04])[:, None]
    truth = ErrorModel(photons=2.0, shared=0.3, own=1.0, overlap=0.5)
    errors = rng.normal(0, np.sqrt(truth.variance(terms)))
    found = fit_error_model(terms, errors)
    for name in ErrorModel.__slots__:
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.15), name
    assert coverage(errors, np.sqrt(found.variance(terms))).within68 == pytest.approx(0.683, abs=0.01)


def test_a_source_that_tells_nothing_gets_next_to_no_weight(rng):
    terms = rng.exponential(1, (4, N))
    found = fit_error_model(terms, rng.normal(0, np.sqrt(terms[2])))
    assert found.own == pytest.approx(1, rel=0.1)
    assert max(found.photons, found.shared, found.overlap) < 0.05


def test_the_fitted_scale_is_right_for_long_tails_too(rng):
    terms = np.tile(rng.exponential(1, N), (4, 1))
    errors = rng.standard_t(4, N) * np.sqrt(terms[0])
    sigma = np.sqrt(fit_error_model(terms, errors).variance(terms))
    assert factor_asked_for(errors, sigma) == pytest.approx(1, abs=1e-6)
    found = coverage(errors, sigma)
    assert 0.63 < found.within68 < 0.78
    assert 0.92 < found.within95 < 0.98


def test_the_offset_of_a_tile_is_no_error_and_its_structure_is(rng):
    truth = np.exp(1j * rng.normal(0, 1, (16, 16))).astype(np.complex64)
    wrong = rng.normal(0, 0.05, (16, 16))
    photons, known = rng.uniform(1, 2, (16, 16)).astype(np.float32), rng.random((16, 16)) < 0.7
    wrong[~known] = 2.0
    errors = tile_errors(truth * np.exp(1j * (wrong + 2.5)), truth, photons, known)
    expected = wrong[known] - np.average(wrong[known], weights=photons[known])
    np.testing.assert_allclose(errors, expected, atol=2e-3)


def test_a_dial_that_has_seen_nothing_changes_and_claims_nothing():
    assert (Dial().coverage, Dial().factor, Dial().alarm) == (None, 1.0, "")
    dial = Dial()
    dial.add(np.zeros(0), np.zeros(0), np.zeros(0))
    assert (dial.n_tiles, dial.coverage) == (0, None)


def test_true_error_bars_stay_as_they_are(rng):
    dial = turn_up(Dial(), rng, 50)
    assert dial.factor == pytest.approx(1, abs=0.03)
    assert dial.coverage.within68 == pytest.approx(0.683, abs=0.03)
    assert dial.coverage.within95 == pytest.approx(0.95, abs=0.015)
    assert dial.alarm == ""


def test_bars_that_are_too_short_grow_and_what_follows_is_covered(rng):
    dial = turn_up(Dial(), rng, 50, sigma=0.06)
    assert dial.factor == pytest.approx(1 / 0.6, rel=0.04)
    assert dial.coverage.within68 == pytest.approx(0.683, abs=0.04), "of all but the first tile"


def test_bars_that_seem_too_long_stay_since_the_reference_may_share_the_errors(rng):
    dial = turn_up(Dial(), rng, 50, sigma=0.16)
    assert dial.factor == 1
    assert dial.coverage.within68 > 0.85
    assert dial.alarm == ""


def test_the_first_tile_is_judged_before_it_changes_the_factor(rng):
    dial = turn_up(Dial(), rng, 1, sigma=0.05)
    assert dial.coverage.within68 == pytest.approx(0.383, abs=0.06)


def test_an_alarm_takes_more_than_one_place(rng):
    dial = turn_up(Dial(), rng, 3, sigma=0.02)
    assert dial.alarm == ""
    assert "68 % bands hold" in turn_up(dial, rng, 1, sigma=0.02).alarm


def test_the_error_of_the_reference_is_not_the_pictures(rng):
    dial = turn_up(Dial(), rng, 50, reference=0.06)
    assert dial.factor == pytest.approx(1, abs=0.1)
    assert dial.coverage.within68 == pytest.approx(0.683, abs=0.04)


def test_a_reference_that_is_hardly_surer_says_nothing(rng):
    dial = turn_up(Dial(), rng, 50, error=0.01, reference=0.08)
    assert (dial.n_tiles, dial.factor, dial.alarm) == (0, 1.0, "")


def test_the_alarm_is_raised_when_bars_had_to_grow_too_much_and_falls_when_the_sample_is_known_again(rng):
    dial = turn_up(Dial(memory=20), rng, 100, sigma=0.04)
    assert "scaled by 2.5" in dial.alarm
    turn_up(dial, rng, 200)
    assert dial.factor == pytest.approx(1, abs=0.04)
    assert dial.alarm == ""
