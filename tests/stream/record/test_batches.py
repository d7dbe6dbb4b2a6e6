import math

import numpy as np
import pytest

from stream.record.batches import BatchRule


def test_the_deadline_counts_anew_for_every_batch():
    rule = BatchRule(4, 0.1)
    assert rule.pick(np.arange(1), 0.0, is_tail=False).size == 0
    assert rule.pick(np.arange(1), 0.1, is_tail=False).size == 1
    assert rule.pick(np.array([5]), 0.11, is_tail=False).size == 0
    assert rule.remaining_s(0.2) == pytest.approx(0.01)
    assert rule.pick(np.array([], int), 0.2, is_tail=False).size == 0
    assert rule.remaining_s(0.2) == math.inf
