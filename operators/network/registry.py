"""The networks that see an object patch in a single diffraction pattern, by name."""

from collections.abc import Callable

from operators.network.interface import Network
from operators.network.literature_nets import PtychoNet, PtychoNN
from operators.network.physics_net import PhysicsNet

# by the name that a recipe and a model card use
NETWORKS: dict[str, Callable[..., Network]] = {
    "physics": PhysicsNet,
    "ptychonet": PtychoNet,
    "ptychonn": PtychoNN,
}
