"""From the configuration of a run to its policy, and the process that answers plans."""

import math
from dataclasses import replace
from functools import partial

from launch.config.config import Config
from launch.config.stages import PolicySection
from launch.run.run_file import ResolvedRun
from launch.run.stages import PROBE_FILE, client_of
from operators.arrays import abs2
from operators.geometry import METRES_PER_UNIT, Geometry
from operators.steering.routes import Travel
from stream.client import LiveReconstruction
from stream.stages.inputs import load_probe
from stream.steering.motor_axes import Axes
from stream.steering.policy import Policy, PolicyConfig
from stream.steering.policy_server import PolicyService
from stream.steering.record import DecisionRecord


def policy(run: ResolvedRun) -> PolicyService:
    """Returns the process that follows the live image and answers plans."""
    section, live = run.config.policy, client_of(run, "stitcher", run.config.live)
    door = replace(section.endpoint(), address=run.addresses.get("policy", section.address))
    connect = partial(
        LiveReconstruction, live.address, insecure=live.insecure, key=live.key, peers=live.peers
    )
    # Where light falls, a guess tells well enough.
    probe = load_probe(run.folder / PROBE_FILE, run.config.geometry.n_pixels)
    illumination = abs2(probe).sum(axis=0)
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
        travel=_travel(section, config.geometry.geometry(), positions.unit),
        seed=section.seed,
    )


def _travel(section: PolicySection, geometry: Geometry, unit: str) -> Travel | None:
    if section.dwell_s is None or section.speed is None:
        return None
    speed_m_s = section.speed * METRES_PER_UNIT[unit]
    return Travel(dwell_s=section.dwell_s, speed_px_s=speed_m_s / geometry.object_pixel_m)
