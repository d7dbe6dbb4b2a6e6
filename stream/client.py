"""The public door to a running pipeline: the live image, the policy of a steered scan, and its persons.

    from stream.client import LiveReconstruction

    with LiveReconstruction("tcp://127.0.0.1:5810") as live:
        for image in live:
            print(image.version, image.frames_seen, image.object.shape)

`LiveReconstruction` iterates over the live image, `PolicyClient` asks where to measure next for a plan and
`RemotePolicy` for an agent, `SteeringClient` tells how a steered scan stands and holds, resumes, restricts or
stops it. All need NumPy, pyzmq and msgspec only, so they run on a computer where nothing else of the pipeline
is installed.
"""

from stream.live.client import LiveReconstruction
from stream.steering.control_client import SteeringClient
from stream.steering.policy_client import PolicyClient
from stream.steering.remote_policy import RemotePolicy

__all__ = ["LiveReconstruction", "PolicyClient", "RemotePolicy", "SteeringClient"]
