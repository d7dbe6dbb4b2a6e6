import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.engine.frame_store import Archive, FrameStore

N = 4


def patterns(n, value=4.0):
    return np.full((n, N, N), value, np.float32)


def positions(n):
    return np.arange(2.0 * n).reshape(n, 2)


def test_frames_are_held_by_number_in_any_order_and_capacity_grows(xp):
    store = FrameStore(N, None, xp)
    numbers = np.random.default_rng(0).permutation(100)
    for number in numbers:
        store.put([number], patterns(1, float(number)), np.full((1, 2), float(number)))
    assert len(store) == 100
    np.testing.assert_array_equal(store.positions_px[:100, 0], numbers)
    np.testing.assert_allclose(to_numpy(store.amplitudes[:100, 0, 0]) ** 2, numbers, rtol=1e-3)
    assert not to_numpy(store.amplitudes[100:]).any()


def test_half_precision_is_finer_than_photon_noise(xp):
    """A square root varies by 1/2 whatever the number of photons."""
    photons = np.geomspace(1, 40_000, 4 * N * N).reshape(4, N, N)
    store = FrameStore(N, None, xp)
    store.put([0, 1, 2, 3], photons.astype(np.float32), positions(4))
    kept = to_numpy(store.select(np.arange(4))[:]).astype(np.float64)
    assert np.abs(kept - np.sqrt(photons)).max() <= 0.5 / 8
    assert to_numpy(store.select(np.array([2, 0]))[0]).tolist() == kept[2].tolist()


def test_more_photons_than_half_precision_holds_stay_finite(xp):
    store = FrameStore(N, None, xp)
    store.put([0], patterns(1, 1e12), positions(1))
    assert np.isfinite(to_numpy(store.select(np.array([0]))[0])).all()


def test_only_frames_not_held_before_count_as_new(xp):
    store = FrameStore(N, None, xp)
    assert store.put([7, 9], patterns(2), positions(2)) == [0, 1]
    assert store.put([9, 8], patterns(2, 9.0), positions(2)) == [2]
    assert store.put([7, 8], patterns(2), positions(2)) == []
    np.testing.assert_allclose(store.powers[:3], np.array([4, 9, 4]) * N * N)


def test_a_number_twice_in_one_call_is_held_once(xp):
    store = FrameStore(N, None, xp)
    assert store.put([3, 3], patterns(2), positions(2)) == [0]
    assert len(store) == 1


def test_invalid_pixels_do_not_count_as_power(xp):
    mask = np.ones((N, N), bool)
    mask[0, 0] = False
    store = FrameStore(N, mask, xp)
    store.put([0], patterns(1), positions(1))
    assert store.powers[0] == 4 * (N * N - 1)
    assert store.mean_power() == 4 * (N * N - 1)


@pytest.mark.parametrize(
    ("given", "placed", "message"),
    [
        (np.ones((2, N, N + 1), np.float32), positions(2), r"patterns of shape \(2, 4, 4\), got \(2, 4, 5\)"),
        (patterns(2), positions(3), r"positions of shape \(2, 2\), got \(3, 2\)"),
        (patterns(2, np.nan), positions(2), "frame 5 is not finite"),
        (patterns(2), np.full((2, 2), np.inf), "frame 5 is not finite"),
    ],
)
def test_bad_frames_are_refused_whole(given, placed, message):
    store = FrameStore(N, None, np)
    with pytest.raises(ValueError, match=message):
        store.put([5, 6], given, placed)
    assert len(store) == 0


def test_growth_compares_each_frame_with_its_own_best(xp):
    store = FrameStore(N, None, xp)
    store.put([0, 1, 2], patterns(3), positions(3))
    slots = np.array([0, 1])
    store.record(slots, xp.asarray([10.0, 30.0], dtype=xp.float32))
    assert store.error_growth() == 1.0
    store.record(slots, xp.asarray([5.0, 5.0], dtype=xp.float32))
    assert store.error_growth() == 1.0
    store.record(np.array([2]), xp.asarray([1e6], dtype=xp.float32))
    assert store.error_growth() == 1.0, "a frame seen for the first time is no divergence"
    store.record(slots, xp.asarray([10.0, 10.0], dtype=xp.float32))
    assert store.error_growth() == pytest.approx(2.0)
    store.forget_growth()
    assert store.error_growth() == 1.0


def test_a_frame_that_was_explained_better_than_its_noise_does_not_look_like_divergence(xp):
    store, slots = FrameStore(N, None, xp), np.array([0])
    store.put([0], patterns(1), positions(1))
    noise = 0.25 * N * N
    for residual in (0.01 * noise, noise):
        store.record(slots, xp.asarray([residual], dtype=xp.float32))
        assert store.error_growth() <= 1.0
    store.record(slots, xp.asarray([3 * noise], dtype=xp.float32))
    assert store.error_growth() == pytest.approx(3.0)


def test_the_residuals_of_many_updates_come_to_the_host_in_one_copy(monkeypatch):
    copies = []
    monkeypatch.setattr("operators.engine.frame_store.to_numpy", lambda a: copies.append(a) or a)
    store = FrameStore(N, None, np)
    store.put([0, 1, 2], patterns(3), positions(3))
    for residual in (80.0, 20.0, 40.0):
        store.record(np.array([2, 0]), np.array([residual, np.nan], np.float32))
    store.record(np.array([0]), np.array([60.0], np.float32))
    assert not copies
    assert store.error_growth() == pytest.approx((40 + 60) / (20 + 60)), "a number is better than none"
    assert store.error() == pytest.approx((40 + 60) / (2 * 4 * N * N))
    assert len(copies) == 1


def test_residuals_that_are_not_finite_are_forgotten_with_the_growth(xp):
    store = FrameStore(N, None, xp)
    store.put([0], patterns(1), positions(1))
    store.record(np.array([0]), xp.asarray([np.nan], dtype=xp.float32))
    assert np.isnan(store.error())
    store.forget_growth()
    assert store.error() == pytest.approx(1.0)


def test_error_counts_frames_visited_only(xp):
    store = FrameStore(N, None, xp)
    assert np.isnan(store.error())
    store.put([0, 1], patterns(2), positions(2))
    store.record(np.array([1]), xp.asarray([16.0], dtype=xp.float32))
    assert store.error() == pytest.approx(16.0 / (4 * N * N))


def test_visits_are_told_of_frames_that_are_new_or_visited_since_the_last_call(xp):
    store = FrameStore(N, None, xp)
    store.put([7, 3, 40, *range(50, 70)], patterns(23), positions(23))
    numbers, n_visits = store.take_visits()
    assert set(numbers.tolist()) == {7, 3, 40, *range(50, 70)}
    assert not n_visits.any()
    for _ in range(2):
        store.record(np.array([1, 2]), xp.asarray([1.0, 1.0], dtype=xp.float32))
    assert [values.tolist() for values in store.take_visits()] == [[3, 40], [2, 2]]
    assert [values.tolist() for values in store.take_visits()] == [[], []]


def test_what_is_summed_up_along_the_way_is_what_a_sum_over_all_frames_says(xp):
    rng = np.random.default_rng(0)
    store = FrameStore(N, None, xp)
    held = 0
    for turn in range(40):
        n = int(rng.integers(1, 4))
        first = 0 if turn == 30 else held  # once frames come again
        store.put(range(first, first + n), patterns(n) * (1 + turn), positions(n))
        held = max(held, first + n)
        slots = rng.choice(held, min(3, held), replace=False)
        residuals = np.full(len(slots), np.inf) if turn == 20 else rng.uniform(0, 5, len(slots))
        store.record(slots, xp.asarray(residuals, dtype=xp.float32))
        if turn == 25:
            store.forget_growth()
        if turn % 3 == 0:
            told = store.error()  # reads the residuals
            power = store.powers[store.n_visits > 0].sum()
            assert told == pytest.approx(store._latest.sum(dtype=np.float64) / power)
        assert store.mean_power() == pytest.approx(store.powers[:held].mean())


def test_frames_that_do_not_fit_are_read_again(xp):
    all_patterns = np.random.default_rng(1).uniform(0, 50, (40, N, N)).astype(np.float32)
    read = []

    def read_again(numbers):
        read.extend(numbers.tolist())
        return all_patterns[numbers]

    few = FrameStore(N, None, xp, Archive(read_again, n_bytes=20 * 2 * N * N))
    every = FrameStore(N, None, xp)
    for store in (few, every):
        for start in range(0, 40, 7):
            part = all_patterns[start : start + 7]
            store.put(range(start, start + len(part)), part, positions(len(part)))
    assert len(few.amplitudes) == 20

    def assert_equal(slots):
        slots = np.array(slots)
        np.testing.assert_array_equal(to_numpy(few.select(slots)[:]), to_numpy(every.select(slots)[:]))

    assert_equal(range(20, 40))
    assert read == [], "the newest are in memory"
    assert_equal([3, 35, 12, 39])
    assert read == [3, 12]
    few.release()
    assert_equal([38, 5])
    assert_equal([38, 5])
    assert read == [3, 12, 38, 5], "where there is room they stay"


def test_frames_that_fit_are_never_moved_on_the_host():
    store = FrameStore(N, None, np, Archive(lambda numbers: patterns(len(numbers)), n_bytes=200 * N * N))
    room = store.amplitudes
    for start in range(0, 100, 10):
        store.put(range(start, start + 10), patterns(10), positions(10))
    assert store.amplitudes is room
    assert len(room) == 100
    store.put([100], patterns(1, 9.0), positions(1))
    assert store.amplitudes is room, "the oldest gives way"
    np.testing.assert_allclose(store.select(np.array([100]))[:], 3)
