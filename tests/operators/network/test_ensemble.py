import numpy as np
import pytest
import torch

from operators.network.ensemble import Ensemble, RoundRobin, thinned, turns
from operators.network.interface import Predicting, Results
from operators.network.predictor import Predictor
from operators.network.registry import NETWORKS
from operators.optics.probe import with_power, zone_plate_probe
from operators.patches import UNIFORM_PHASE_SIGMA

PROBE = with_power(zone_plate_probe(32, 6, 7)[None], 1e4)
WEIGHTS = np.square(np.abs(PROBE[0]))
SHAPES = {
    "physics": {"n_pixels": 32, "crop": 24, "widths": (8, 16), "unshuffle": 1},
    "ptychonet": {"n_pixels": 32, "widths": (4, 8, 8)},
    "ptychonn": {"n_pixels": 32, "widths": (4, 8)},
}


class Saying(Predicting):
    """A member that always sees the same phase, and turns its patches as it likes."""

    def __init__(self, phase: np.ndarray, sigma: float, turn: float = 0.0) -> None:
        self.patch, self.sigma = np.exp(1j * (phase + turn)).astype(np.complex64), np.float32(sigma)
        self.n_seen, self.crop = 0, len(phase)
        self.is_warm = False

    def submit(self, patterns: np.ndarray) -> Results:
        self.n_seen += len(patterns)
        patches = np.broadcast_to(self.patch, patterns.shape).copy()
        return lambda: (patches, np.full(patterns.shape, self.sigma, np.float32))

    def warm_up(self) -> None:
        self.is_warm = True


def checks(amplitude: float) -> np.ndarray:
    """A phase of plus and minus `amplitude` whose mean is nothing."""
    return amplitude * (-1.0) ** np.indices((32, 32)).sum(axis=0)


def patterns(n_frames: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(9.0, (n_frames, 32, 32)).astype(np.float32)


def test_members_that_agree_up_to_a_global_phase_add_nothing() -> None:
    members = [Saying(checks(0.3), sigma=0.1, turn=turn) for turn in (0.0, 2.0, -1.0)]
    patches, sigma = Ensemble(members, WEIGHTS).predict(patterns(4))
    np.testing.assert_allclose(patches, members[0].predict(patterns(4))[0], atol=1e-6)
    np.testing.assert_allclose(sigma, 0.1, rtol=1e-5)


@pytest.mark.parametrize(("own", "expected"), [(0.1, 0.2), (0.3, 0.3)])
def test_members_speak_where_they_disagree_by_more_than_their_own_sigma(own: float, expected: float) -> None:
    members = [Saying(checks(0.2), sigma=own), Saying(checks(-0.2), sigma=own)]
    patches, sigma = Ensemble(members, WEIGHTS).predict(patterns(2))
    np.testing.assert_allclose(np.angle(patches), 0, atol=1e-2)
    np.testing.assert_allclose(sigma, expected, rtol=1e-2)


def test_only_the_trusted_members_give_the_estimate() -> None:
    members = [Saying(checks(0.2), sigma=0.1), Saying(checks(-0.2), sigma=3.0)]
    patches, sigma = Ensemble(members, WEIGHTS, n_estimates=1).predict(patterns(2))
    np.testing.assert_allclose(patches, members[0].predict(patterns(2))[0], atol=1e-6)
    np.testing.assert_allclose(sigma, np.sqrt(0.4**2 / 2 / 2), rtol=1e-2)


def test_members_that_only_tell_the_spread_say_nothing_below_the_sigma_of_the_estimate() -> None:
    members = [Saying(checks(0.2), sigma=0.25), Saying(checks(-0.2), sigma=3.0)]
    np.testing.assert_allclose(Ensemble(members, WEIGHTS, n_estimates=1).predict(patterns(2))[1], 0.25)


def test_sigma_never_exceeds_that_of_a_uniform_phase() -> None:
    members = [Saying(checks(0.4), sigma=2.0), Saying(checks(-0.4), sigma=2.0)]
    assert Ensemble(members, WEIGHTS).predict(patterns(1))[1].max() == pytest.approx(UNIFORM_PHASE_SIGMA)


def test_one_member_cannot_disagree() -> None:
    with pytest.raises(ValueError, match="at least 2 members, got 1"):
        Ensemble([Saying(checks(0.1), 0.1)], WEIGHTS)


def test_round_robin_gives_every_pattern_to_one_member_whatever_its_batch() -> None:
    members = [Saying(checks(phase), sigma=phase) for phase in (0.1, 0.2, 0.3)]
    together = RoundRobin(members).predict(patterns(60))
    assert sum(member.n_seen for member in members) == 60
    assert min(member.n_seen for member in members) > 10
    phases = np.angle(together[0][:, 0, 0])
    np.testing.assert_allclose(phases, 0.1 * (1 + turns(patterns(60), 3)), rtol=1e-5)
    for number in range(10):
        alone = RoundRobin(members).predict(patterns(60)[number : number + 1])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[number])


@pytest.mark.parametrize("name", SHAPES)
def test_thinned_copies_differ_from_the_network_and_from_each_other(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](**SHAPES[name]).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network.largest_intensity.fill_(1.0)

    def patches(network) -> np.ndarray:
        return Predictor(network, PROBE).predict(patterns(2))[0]

    whole, once, again, other = (
        patches(it)
        for it in (network, thinned(network, 0.3, 1), thinned(network, 0.3, 1), thinned(network, 0.3, 2))
    )
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(whole, patches(thinned(network, 0.0, 1)))
    assert np.abs(once - whole).max() > 1e-3
    assert np.abs(once - other).max() > 1e-3


def test_a_dropout_of_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"below 1, got 1\.0"):
        thinned(NETWORKS["physics"](**SHAPES["physics"]), 1.0, 0)
