"""Several processes that train one network, each on a device of its own, as `torchrun` starts them.

Every process draws the same batch and works on its share of it, so that a recipe means the same whatever
the number of processes.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from operators.network.interface import Illumination, Network

LONGEST_LEAD = timedelta(days=1)  # of the first process: refining a scan outlasts the usual ten minutes


class Processes(NamedTuple):
    """The processes of a training, seen from one of them."""

    rank: int
    size: int
    device: str

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def share(
        self, objects: Tensor, intensities: Tensor, illumination: Illumination
    ) -> tuple[Tensor, Tensor, Illumination]:
        """Return the frames of a batch that this process works on, whose size `check_shares` has seen."""
        share = len(objects) // self.size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        return objects[mine], intensities[mine], illumination.of(mine)

    def parallel(self, network: Network) -> nn.Module:
        """Return the network to train: gradients, and on GPUs batch norms, are those of all shares."""
        if self.size == 1:
            return network
        if self.device.startswith("cuda"):
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network)

    def total(self, figures: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(figures)
        return figures

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """Let the first process through alone and the others after it: they find the files that it wrote."""
        if self.size == 1:
            yield
            return
        # The default group gives up after minutes. This one is made by all before any of them waits.
        group = distributed.new_group(timeout=LONGEST_LEAD, backend="gloo")
        if not self.is_first:
            distributed.barrier(group)
        yield
        if self.is_first:
            distributed.barrier(group)


def is_first_process() -> bool:
    """Return whether this is the process that talks to the terminal: the only one, or the first of all."""
    return os.environ.get("RANK", "0") == "0"


def cores_of_process() -> int:
    """Return how many cores this process may use: its share of those that all on this machine may."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def check_shares(batch_size: int) -> None:
    """Raises ValueError if the processes that `torchrun` started cannot share such a batch evenly."""
    size = _n_processes()
    if batch_size % size:
        raise ValueError(
            f"batch_size = {batch_size} cannot be shared evenly by {size} processes; "
            "make it a multiple of their number"
        )


def _n_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the processes that `torchrun` started; without it there is one.

    Parameters
    ----------
    device : str
        "cuda" gives each process of a machine a GPU of its own.
    """
    size = _n_processes()
    if size == 1:
        yield Processes(0, 1, device)
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(distributed.get_rank(), size, device)
    finally:
        gc.collect()  # a wrapped network has cycles: left to the interpreter's end, its threads abort it
        distributed.destroy_process_group()
