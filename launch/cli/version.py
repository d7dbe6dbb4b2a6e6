"""What `--version` says: what a report of a bug needs to name."""

import platform
from importlib.metadata import packages_distributions
from importlib.util import find_spec

from launch.extras import EXTRA_OF, version_of

CLIENT, GPU = {"numpy": "client", "zmq": "client"}, {"cupy": "gpu"}


def versions() -> str:
    """Returns program, Python and system, and of each extra what is installed; nothing is imported for it."""
    distributions = packages_distributions()
    lines = [
        f"ptychostream {version_of('ptychostream')}",
        f"Python {platform.python_version()}, {platform.platform()}",
    ]
    extras: dict[str, list[str]] = {}
    for module, extra in (CLIENT | EXTRA_OF | GPU).items():
        names = distributions.get(module, ())
        there = version_of(names[0]) if names and find_spec(module) else "missing"
        extras.setdefault(extra, []).append(f"{module} {there}")
    return "\n".join([*lines, *(f"{extra}: {', '.join(parts)}" for extra, parts in extras.items())])
