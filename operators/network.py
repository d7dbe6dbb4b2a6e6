"""The networks that see an object patch in a single diffraction pattern, by name.

Separate from the networks because recipes, model cards and the loading of weights know them by name only.
Called by `launch.train` and `stream.weights`.
"""

from collections.abc import Callable

from operators.network_interface import Network
from operators.physics_net import PhysicsNet

# by the name that a recipe and a model card use
NETWORKS: dict[str, Callable[..., Network]] = {"physics": PhysicsNet}
