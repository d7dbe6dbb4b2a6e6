import numpy as np

from operators.steering.repair import REPAIR_LAG, Repairs

N = REPAIR_LAG + 20
CENTRES = np.stack([np.zeros(N, np.int64), 10 * np.arange(N)], axis=1)
LOST = [(0, 30), (0, 50)]
SHOWN = np.delete(CENTRES, [3, 5], axis=0)


def test_an_exposure_that_the_image_has_passed_by_is_lost_once():
    repairs = Repairs(radius_px=2.0)
    repairs.look(SHOWN + 0.5)
    assert repairs.lost(CENTRES) == LOST
    repairs.done(LOST[:1])
    assert repairs.lost(CENTRES) == LOST[1:]


def test_what_the_image_may_still_show_is_not_lost():
    repairs = Repairs(radius_px=2.0)
    assert repairs.lost(CENTRES) == []  # no image
    repairs.look(np.zeros((0, 2)))
    assert repairs.lost(CENTRES) == []
    repairs.look(SHOWN[: REPAIR_LAG + 1])
    assert repairs.lost(CENTRES) == []  # too few after it
    repairs.look(SHOWN[: REPAIR_LAG + 4])
    assert repairs.lost(CENTRES) == LOST[:1]


def test_an_exposure_that_comes_late_is_not_lost_any_more():
    repairs = Repairs(radius_px=2.0)
    repairs.look(SHOWN)
    assert repairs.lost(CENTRES) == LOST
    repairs.look(CENTRES)
    assert repairs.lost(CENTRES) == []
    repairs.look(SHOWN)
    assert repairs.lost(CENTRES) == []  # seen once is enough
    repairs.forget_image()
    repairs.look(SHOWN)
    assert repairs.lost(CENTRES) == LOST
