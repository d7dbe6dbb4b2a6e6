"""A Ray cluster of real processes on this computer: a head without cores, and a node that may be killed.

Ray runs in a process of its own, which is told what to do: a test would leave its variables, threads and
handlers behind.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest.mock import patch

HEAD, NODE = "127.0.0.2", "127.0.0.3"  # Ray takes 127.0.0.1 for an address to be replaced
STORE_BYTES = 80_000_000
QUICK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500",  # a node that is killed is missed in seconds, not in half a minute
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "500",
}


class RayNodes:
    """The cluster, from outside."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.address = self._hear()

    def kill_node(self) -> None:
        """Kills every process of the node."""
        self._say("kill")

    def start_node(self) -> None:
        """Starts the node again; returns when the head knows it."""
        self._say("start")

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        assert self._hear() == word

    def _hear(self) -> str:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith("nodes: "):
            assert line, "the cluster has ended"
        return line.removeprefix("nodes: ").strip()


@contextmanager
def ray_nodes() -> Iterator[RayNodes]:
    """Start the cluster, which `--on ray` finds; all of it is gone afterwards."""
    command = [sys.executable, "-m", "tests.helpers.launch.ray_nodes"]
    environment = os.environ | QUICK
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            nodes = RayNodes(process)
            with patch.dict(os.environ, RAY_ADDRESS=nodes.address):
                yield nodes
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr] -- it has one
            process.wait(30)


def main() -> None:
    """Start head and node, do as told by lines of standard input, and end all at its end."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    common = {"object_store_memory": STORE_BYTES, "wait": False}
    try:
        cluster.add_node(node_ip_address=HEAD, num_cpus=0, include_dashboard=False, **common)

        def start():
            return cluster.add_node(node_ip_address=NODE, num_cpus=2, **common)

        node = start()
        cluster.wait_for_nodes()
        print(f"nodes: {cluster.address}", flush=True)
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(node, allow_graceful=False)
            else:
                node = start()
                cluster.wait_for_nodes()
            print(f"nodes: {line.strip()}", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
