"""From the configuration of a run to its policy, and the process that answers plans."""

from functools import partial

from launch.config.policy import policy_aims
from launch.config.run_file import PROBE_FILE, ResolvedRun, client_of
from operators.arrays import abs2
from stream.live.client import LiveReconstruction
from stream.stages.inputs import load_probe
from stream.steering.policy import Policy
from stream.steering.policy_server import PolicyService
from stream.steering.record import DecisionRecord


def policy_service(run: ResolvedRun) -> PolicyService:
    """Returns the process that follows the live image and answers plans."""
    section, live = run.config.policy, client_of(run, "stitcher", run.config.live)
    door = section.changed(address=run.addresses.get("policy", section.address)).endpoint()
    connect = partial(
        LiveReconstruction, live.address, insecure=live.insecure, key=live.key, peers=live.peers
    )
    # Where light falls, a guess tells well enough.
    probe = load_probe(run.folder / PROBE_FILE, run.config.geometry.n_pixels)
    illumination = abs2(probe).sum(axis=0)
    record = DecisionRecord(run.scans, run.folder, illumination)
    return PolicyService(Policy(policy_aims(run.config), illumination), connect, door, run.run_id, record)
