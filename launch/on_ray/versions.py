"""Versions that a node and the run must share, and what is said when they do not."""

import re

from launch.extras import version_of

_RAY = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def own_version() -> str:
    """Returns the version of ptychostream on this node."""
    return version_of("ptychostream")


def why_not_connected(on: str, error: BaseException) -> str:
    """Returns why the cluster `on` cannot be used, in one sentence."""
    text = " ".join(str(error).split())
    if len(found := _RAY.findall(text)) == 2:
        (ray, python), (own_ray, own_python) = found
        return (
            f"{on} runs Ray {ray} on Python {python}, and here are Ray {own_ray} and Python {own_python}: "
            "install the same on all nodes and here"
        )
    return f"{on} cannot be used: {text[:300] or type(error).__name__}"


def why_not_started(error: BaseException) -> str:
    """Returns why an actor could not be started on a node, in one sentence."""
    text = str(error)
    if found := re.search(r"No module named '(?:launch|stream|operators)\b", text):
        return f"a node of the cluster has no ptychostream: install version {own_version()} there"
    if found := re.search(r"ValueError: (.*has ptychostream .*)", text):
        return f"{found[1]}: install the same on all nodes"
    if found := re.search(r"(?:\w+\.)*(?:ModuleNotFoundError|ImportError): (.*)", text):
        return f"a node of the cluster lacks a part of ptychostream: {found[1]}"
    return " ".join(text.split())[:300] or type(error).__name__
