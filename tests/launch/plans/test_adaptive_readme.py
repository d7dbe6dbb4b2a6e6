"""The lines of Python with which the pages steer a scan, run as they stand with simulated devices."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

import bluesky

from tests.helpers.documentation import Block, all_blocks
from tests.helpers.launch.plans import Detector, Motor, Run, answering
from tests.helpers.stream.policies import image, policy

ADDRESS = "tcp://127.0.0.1:5811"
BLOCKS = [block for block in all_blocks() if block.mark == "plan"]


def steered(monkeypatch: pytest.MonkeyPatch, block: Block, address: str) -> tuple[Run, dict[str, Any]]:
    """The run that a block makes with its policy at `address`, and the block's names."""
    run = Run()
    monkeypatch.setattr(bluesky, "RunEngine", lambda: run)
    names = {"detector": Detector(), "y": Motor("y"), "x": Motor("x")}
    exec(block.text.replace(ADDRESS, address), names)
    return run, names


def test_the_readme_shows_how_to_steer_in_ten_lines() -> None:
    assert "README.md" in {block.page for block in BLOCKS}
    for block in BLOCKS:
        assert len([line for line in block.text.splitlines() if line.strip()]) <= 10
        assert ADDRESS in block.text


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=map(str, BLOCKS))
def test_what_a_page_shows_follows_the_policy_within_the_limits(
    monkeypatch: pytest.MonkeyPatch, block: Block
) -> None:
    steers = policy(limits=((0, 10), (0, 10)))
    steers.look(image())
    with answering(steers=steers) as address:
        run, names = steered(monkeypatch, block, address)
    assert run.exit_status == ["success"]
    assert {decision["source"] for decision in run.decisions[:-1]} == {"agent"}
    low, high = np.array(names["limits"]).T
    assert ((run.points >= low) & (run.points <= high)).all()
    assert len(run.points) == len(names["planned"])
