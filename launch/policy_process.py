"""From the configuration of a run to its policy, and the process that answers plans.

Separate from `launch.stages` because a policy is made of more than its own section: probe, positions and the
live image's address. Made by `launch.stage_process`.
"""

import math
from dataclasses import replace
from functools import partial

from launch.config import Config
from launch.run_file import ResolvedRun
from launch.stages import client_of, optics
from operators.arrays import abs2
from stream.client import LiveReconstruction
from stream.decisions import DecisionRecord
from stream.motor_axes import Axes
from stream.policy import Policy, PolicyConfig
from stream.policy_door import PolicyService


def policy(run: ResolvedRun) -> PolicyService:
    """Returns the process that follows the live image and answers plans."""
    section, live = run.config.policy, client_of(run, "stitcher", run.config.live)
    door = replace(section.endpoint(), address=run.addresses.get("policy", section.address))
    connect = partial(
        LiveReconstruction, live.address, insecure=live.insecure, key=live.key, peers=live.peers
    )
    illumination = abs2(optics(run).load_probe()).sum(axis=0)
    record = DecisionRecord(run.scans, run.folder, illumination)
    return PolicyService(Policy(policy_config(run.config), illumination), connect, door, run.run_id, record)


def policy_config(config: Config) -> PolicyConfig:
    """Returns what the policy is told.

    Raises
    ------
    ValueError
        If limits or the unit of positions are not known.
    """
    section, positions = config.policy, config.positions
    if section.limits is None or positions.unit is None:
        raise ValueError("policy: needs `policy.limits` and `positions.unit`")
    return PolicyConfig(
        axes=Axes(geometry=config.geometry.geometry(), unit=positions.unit, signs=positions.signs),
        limits=section.limits,
        motors=(positions.y or "y", positions.x or "x"),
        region=section.region,
        max_dose=math.inf if section.max_dose is None else section.max_dose,
        target_rad=section.target_rad,
        overlap=section.overlap,
        seed=section.seed,
    )
