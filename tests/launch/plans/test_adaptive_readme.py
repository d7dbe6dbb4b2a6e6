"""The lines of Python with which the README steers a scan, run as they stand with simulated devices."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

import bluesky

from tests.helpers.plans import Detector, Motor, Run, answering
from tests.helpers.policies import image, policy

README = Path(__file__).resolve().parents[3] / "README.md"
ADDRESS = "tcp://127.0.0.1:5811"
(BLOCK,) = [
    block
    for block in re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    if "adaptive_ptycho" in block
]


def steered(monkeypatch: pytest.MonkeyPatch, address: str) -> tuple[Run, dict[str, Any]]:
    """The run that the block makes with its policy at `address`, and the block's names."""
    run = Run()
    monkeypatch.setattr(bluesky, "RunEngine", lambda: run)
    names = {"detector": Detector(), "y": Motor("y"), "x": Motor("x")}
    exec(BLOCK.replace(ADDRESS, address), names)
    return run, names


def test_the_readme_shows_how_to_steer_in_ten_lines() -> None:
    assert len([line for line in BLOCK.splitlines() if line.strip()]) <= 10
    assert ADDRESS in BLOCK


@pytest.mark.slow
def test_what_the_readme_shows_follows_the_policy_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    steers = policy(limits=((0, 10), (0, 10)))
    steers.look(image())
    with answering(steers=steers) as address:
        run, names = steered(monkeypatch, address)
    assert run.exit_status == ["success"]
    assert {decision["source"] for decision in run.decisions[:-1]} == {"agent"}
    low, high = np.array(names["limits"]).T
    assert ((run.points >= low) & (run.points <= high)).all()
    assert len(run.points) == len(names["planned"])
