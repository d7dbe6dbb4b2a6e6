import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.mosaic.new_ground import N_STEPS, NewGround


def disc(n_pixels=16, radius=4.5):
    y, x = np.mgrid[:n_pixels, :n_pixels] - (n_pixels - 1) / 2
    return (np.hypot(y, x) < radius).astype(np.float32)


def places(*rows_and_columns):
    return np.array(rows_and_columns, np.int64).reshape(-1, 2)


def waiting(corners, illumination=None):
    ground = NewGround(disc() if illumination is None else illumination)
    ground.wait(np.arange(len(corners)), corners)
    return ground


def test_the_patch_that_shows_most_goes_first_and_what_it_shows_is_old_from_then_on():
    in_place, moved, elsewhere = (0, 0), (0, 5), (0, 40)
    ground = NewGround(disc())
    ground.show(places(in_place))
    ground.wait(np.arange(3), places(in_place, moved, elsewhere))
    assert ground.first(2) == [2, 1]
    assert ground.first(9) == [], "the first shows nothing new"


def test_of_patches_that_show_as_much_the_older_goes_first():
    assert waiting(places((0, 90), (0, 0), (0, 45))).first(3) == [0, 1, 2]


def test_a_row_is_covered_with_gaps_first_and_the_gaps_are_filled_after():
    row = places(*((0, 3 * i) for i in range(10)))
    order = waiting(row).first(10)
    assert order[:4] == [0, 3, 6, 9], "beams of 9 pixels, side by side"
    assert set(order) < set(range(10)), "three steps on everything is known"


def test_what_waits_when_it_is_shown_by_others_is_not_chosen_any_more():
    ground = waiting(places((0, 0), (0, 1), (7, 0)))
    ground.show(places((0, 0), (0, 1)))
    assert ground.first(3) == [2]


def test_ground_may_lie_anywhere_and_be_come_to_late():
    ground = waiting(places((0, 0)))
    far = places((-700, 3000), (5000, -20))
    ground.wait(np.array([1, 2]), far)
    assert ground.first(3) == [0, 1, 2]
    ground.show(places((900, 900)))
    ground.wait(np.array([3, 4, 5]), np.concatenate([far, places((900, 899))]))
    assert ground.first(3) == [5]


def test_a_large_beam_is_told_apart_as_a_small_one_is():
    step = 40
    row = places(*((0, step // 4 * i) for i in range(9)))
    order = waiting(row, disc(256, radius=20)).first(9)
    assert order[:3] == [0, 4, 8]


@given(
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=30),
    st.lists(st.integers(1, 4), min_size=1, max_size=10),
)
def test_the_queue_chooses_as_if_it_looked_at_all_of_them_every_time(corners, sizes):
    """Patches come in groups between the choices, as frames do."""
    corners, lit = places(*corners), disc(12, radius=4.5) > 0
    ground = NewGround(disc(12, radius=4.5))
    canvas, n_come, left, chosen, expected = np.zeros((64, 64), bool), 0, [], [], []
    for size in sizes:
        come = np.arange(n_come, min(n_come + 3, len(corners)))
        n_come += len(come)
        ground.wait(come, corners[come])
        left += come.tolist()
        chosen += ground.first(size)
        for _ in range(size):
            best = best_of(canvas, lit, corners, left)
            if best is not None:
                window_of(canvas, lit, corners[best])[lit] = True
                left.remove(best)
                expected.append(best)
    assert chosen == expected


def best_of(canvas, lit, corners, left):
    known = {i: window_of(canvas, lit, corners[i])[lit] for i in left}
    steps = {i: N_STEPS * int(is_known.sum()) // lit.sum() for i, is_known in known.items()}
    return min((i for i in left if steps[i] < N_STEPS), key=lambda i: (steps[i], i), default=None)


def window_of(canvas, lit, corner):
    return canvas[corner[0] : corner[0] + len(lit), corner[1] : corner[1] + len(lit)]


def test_a_patch_is_looked_at_no_oftener_than_there_are_steps(monkeypatch: pytest.MonkeyPatch):
    n_looks = 0
    look = NewGround._steps_known

    def counted(self, row, column):
        nonlocal n_looks
        n_looks += 1
        return look(self, row, column)

    monkeypatch.setattr(NewGround, "_steps_known", counted)
    raster = places(*((2 * row, 2 * column) for row in range(20) for column in range(20)))
    ground = waiting(raster)
    while ground.first(3):
        pass
    assert n_looks <= (N_STEPS + 2) * len(raster)
