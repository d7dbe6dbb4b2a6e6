import numpy as np

from operators.engine.gate import FRAMES_OF_TILE, Closing, Gate, expected_of_new, tile_side, withheld_on
from operators.geometry import Bounds

N = 16
NOISE = 100.0  # photons of a frame


class Misfits:
    """An engine that holds frames whose misfits are told; by the mosaic they are twice the noise."""

    def __init__(self, refined):
        self.refined, self.asked = refined, []

    def misfits(self, numbers, patches=None):
        self.asked.append(list(numbers))
        if patches is not None:
            assert len(patches) == len(numbers)
        left = [2 * NOISE if patches is not None else self.refined(number) for number in numbers]
        return np.array([left, [NOISE] * len(numbers)])


class Windows:
    def windows(self, corners):
        return np.ones((len(corners), N, N), np.complex64)


def grid(n_side, step):
    """Corners of windows whose middles begin at 0."""
    return step * np.indices((n_side, n_side)).reshape(2, -1).T - N // 2


def gate_on(corners):
    gate = Gate(N)
    gate.place(range(len(corners)), corners)
    return gate


def tiles(gate):
    return {tuple(tile) for tile in gate.withheld.tolist()}


def test_ground_is_withheld_until_it_explains_its_frames_better_than_the_mosaic():
    gate = gate_on(grid(4, 4))  # 2 x 2 tiles of 4 frames
    assert tiles(gate) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    gate.look(Misfits(lambda number: NOISE if number < 8 else 4 * NOISE), Windows())
    assert tiles(gate) == {(1, 0), (1, 1)}


def test_fitted_noise_is_no_evidence():
    gate = gate_on(grid(4, 4))
    gate.look(Misfits(lambda number: 0.0), Windows())  # new frames would have as much noise again
    assert len(tiles(gate)) == 4
    gate.look(Misfits(lambda number: 0.5 * NOISE), Windows())
    assert not tiles(gate)
    expected = expected_of_new(np.array([0.0, 0.8, 1.0, 3.0]), np.ones(4))
    np.testing.assert_allclose(expected, [2.0, 1.2, 1.0, 3.0])


def test_ground_once_shown_is_not_taken_away_for_a_little():
    gate = gate_on(grid(4, 4))
    gate.look(Misfits(lambda number: NOISE), Windows())
    gate.look(Misfits(lambda number: 2.05 * NOISE), Windows())
    assert not tiles(gate)
    gate.look(Misfits(lambda number: 2.2 * NOISE), Windows())
    assert len(tiles(gate)) == 4


def test_a_look_costs_the_same_however_many_tiles_there_are():
    small, large = gate_on(grid(60, 4)), gate_on(grid(240, 4))
    asked = []
    for gate in (small, large):
        engine = Misfits(lambda number: NOISE)
        gate.look(engine, Windows())
        asked.append([len(numbers) for numbers in engine.asked])
    assert asked[0] == asked[1]
    assert asked[0][0] < 60 * 60 / FRAMES_OF_TILE


def test_every_tile_has_its_turn_and_withheld_ones_first():
    gate, engine = gate_on(grid(60, 4)), Misfits(lambda number: NOISE)
    n_looks = 0
    while tiles(gate):
        gate.look(engine, Windows())
        n_looks += 1
    assert n_looks > 1
    relapsed = Misfits(lambda number: 3 * NOISE)
    for _ in range(2 * n_looks):
        gate.look(relapsed, Windows())
    assert len(tiles(gate)) == 30 * 30


def test_after_a_restart_tiles_are_shown_and_withheld_as_they_were():
    gate = gate_on(grid(4, 4))
    gate.look(Misfits(lambda number: NOISE if number < 8 else 4 * NOISE), Windows())
    again = gate_on(grid(4, 4))
    again.restore(gate.withheld)
    assert tiles(again) == tiles(gate)
    again.look(Misfits(lambda number: NOISE), Windows())
    assert not tiles(again)


def test_tiles_withheld_are_found_on_any_part_of_the_object():
    side = tile_side(N)
    mask = withheld_on(Bounds(-side - 2, 3, side, 2 * side), np.array([[-1, 0], [5, 5]]), N)
    assert mask.shape == (2 * side + 2, 2 * side - 3)
    expected = np.zeros_like(mask)
    expected[2 : side + 2, : side - 3] = True
    np.testing.assert_array_equal(mask, expected)


def closing_states(*misfits, n_before=2):
    """Whether each state is worse than the first that counts, an epoch after the other."""
    closing, engine, answers = Closing(), Misfits(lambda number: 0.0), []
    engine.error_history = [0.1] * n_before
    for misfit in misfits:
        engine.refined = lambda number, misfit=misfit: misfit
        answers.append(closing.leads_away(engine, range(1000)))
        engine.error_history.append(0.1)
    assert all(len(numbers) <= 128 for numbers in engine.asked)
    return answers


def test_a_closing_that_explains_less_than_it_began_with_leads_away():
    assert closing_states(9, 9, 9, 5, 6, 5, 4, np.nan) == [False] * 4 + [True, False, False, True]


def test_states_from_before_all_frames_were_seen_are_no_measure():
    assert closing_states(1, 1, 1, 5, 4) == [False] * 5
