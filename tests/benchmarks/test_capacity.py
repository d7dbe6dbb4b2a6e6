"""The paper estimate: its simulation against queueing theory, its figures against the pages."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.capacity import estimate
from tests.benchmarks.capacity.queueing import Station, passed_s, served_s
from tests.helpers.documentation import ROOT

PAGE = ROOT / "docs" / "explanation" / "at-scale.md"


def test_the_line_before_some_servers_is_that_of_theory() -> None:
    rng = np.random.default_rng(0)
    n_servers, service_s, rate_hz = 3, 0.01, 240.0
    comes_s = np.cumsum(rng.exponential(1 / rate_hz, 200_000))
    station = Station(name="any", servers=n_servers, service_s=service_s, spread=1.0)
    waited_s = (served_s(comes_s, station, rng) - comes_s).mean() - service_s
    # Erlang's C formula, for random arrivals and random times of service.
    offered = rate_hz * service_s
    all_busy = offered**n_servers / math.factorial(n_servers) / (1 - station.load(rate_hz))
    waits = all_busy / (sum(offered**n / math.factorial(n) for n in range(n_servers)) + all_busy)
    assert waited_s == pytest.approx(waits * service_s / (n_servers - offered), rel=0.05)


def test_a_batch_goes_when_it_is_full_or_its_oldest_frame_has_waited() -> None:
    station = Station(name="any", servers=1, service_s=0.001, batch=3, deadline_s=0.05)
    comes_s = np.array([0.0, 0.01, 0.02, 0.10, 0.11])
    leaves_s = served_s(comes_s, station, np.random.default_rng(0))
    np.testing.assert_allclose(leaves_s, [0.023, 0.023, 0.023, 0.152, 0.152])


def test_what_comes_faster_than_it_is_served_falls_behind_by_the_difference() -> None:
    comes_s = np.arange(10_000) / 1000.0
    slow = Station(name="slow", servers=2, service_s=0.0025)
    assert slow.load(1000.0) == 1.25
    late_s = passed_s(comes_s, [slow], np.random.default_rng(0)) - comes_s
    assert late_s[-1] == pytest.approx(0.25 * comes_s[-1], rel=0.01)


def test_every_cost_is_read_from_a_page_of_figures() -> None:
    assert all(source.read() > 0 for source in estimate.SOURCES.values())


def test_the_image_follows_with_what_is_said_to_be_needed_and_not_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "RATE_HZ", 1000.0)
    *_, figures = estimate.measure(tmp_path)
    enough, with_margin, too_few = figures["simulated"].values()
    assert enough["behind 1 s after the last"] == with_margin["behind 1 s after the last"] == 0
    assert too_few["behind 1 s after the last"] > 0


def test_a_pool_is_too_small_as_seldom_as_is_said() -> None:
    at_once = estimate.busy_at_once(100)
    busy = np.random.default_rng(0).binomial(100, estimate.DUTY, 200_000)
    assert (busy > at_once).mean() <= estimate.SHORTAGE * 1.2
    assert (busy > at_once - 1).mean() > estimate.SHORTAGE


def test_the_page_says_what_the_estimate_says(tmp_path: Path) -> None:
    """By a quarter: the pages of figures change more often than what follows from them."""
    needs = next(estimate.measure(tmp_path))["needs"]
    text = PAGE.read_text()
    for name, row in needs.items():
        found = re.search(rf"^\| {re.escape(name)} \| (.*) \|$", text, re.MULTILINE)
        assert found, f"{PAGE} has no row {name!r}"
        said = [cell.strip().replace(",", "") for cell in found[1].split("|")]
        for cell, value in zip(said, row.values(), strict=True):
            assert (cell == "–") == (value == ""), name
            if cell != "–":
                assert float(cell) == pytest.approx(value, rel=0.25), name
