"""The `stage` command: this machine works for a run on another one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from launch.run.claims import short_lived_folder
from stream.record.handover import NETWORK
from stream.remote.asking import Asker
from stream.remote.line import RemoteStage, work_for
from stream.remote.setup import Paths
from stream.wire.sockets import Endpoint

_tell = partial(print, flush=True)  # a service manager's log shows it at once


Make = Callable[[Path, Path, Asker], RemoteStage]


def stage(
    name: str,
    run: Endpoint,
    *,
    device: str,
    threads: int,
    patience_s: float,
    cache: Path | None = None,
) -> int:
    """Works for the run at an address, and for the next one there; returns the exit status.

    Parameters
    ----------
    name : str
        One of `STAGES`.
    run : Endpoint
    device : str
        Where it computes: auto, cpu or cuda.
    threads : int
        Cores it may use.
    patience_s : float
        Ends when nobody has answered for so long.
    cache : Path, optional
        Folder in which weights are kept; without it they are fetched each time.

    Raises
    ------
    ValueError
        If there is no such stage, or it cannot work for this run.
    OSError
        If the cache cannot be made, or no run has ever answered.
    """
    if name not in STAGES:
        raise ValueError(f"stage {name!r}: other machines can do {', '.join(STAGES)}")
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    make_one, workers = STAGES[name](device, threads), list[RemoteStage]()

    def make(asker: Asker) -> RemoteStage:
        workers.append(make_one(cache or folder / "files", folder, asker))
        return workers[-1]

    with short_lived_folder() as folder:
        try:
            work_for(run, name, make, tell=_tell, patience_s=patience_s)
        except TimeoutError as error:
            if not workers:
                raise
            _tell(error)
        finally:
            if workers:
                _tell(f"{sum(worker.n_done for worker in workers)} frames done here")
    return 0


def _inference(device: str, threads: int) -> Make:
    from stream.remote.inference.worker import RemoteWorker
    from stream.remote.setup import taken_up
    from stream.stages.inference.worker import Inference

    def build(settings: str, paths: Paths) -> Inference:
        network, optics = taken_up(settings, paths, device=device, threads=threads)
        inference = Inference(network, optics)
        _tell(f"ready: {inference.card.name}, version {inference.card.model_id}, on {inference.device}")
        return inference

    return partial(RemoteWorker, build)


def _refinement(device: str, threads: int) -> Make:
    import time

    from operators.engine.compiled.update import can_compile
    from stream.remote.refinement.at_work import InThread
    from stream.remote.refinement.refiner import RemoteRefiner
    from stream.remote.setup import refinement_taken_up
    from stream.stages.refinement.worker import Refinement

    backend = {"cpu": "compiled" if can_compile() else "numpy", "cuda": "cupy-fused"}.get(device, "auto")

    def build(settings: str, paths: Paths) -> Refinement:
        stage = refinement_taken_up(settings, paths, device=backend, threads=threads, clock=time.monotonic)
        _tell(f"ready: refinement on {stage.setup.backend.name}")
        return stage

    return partial(RemoteRefiner, build, InThread)


STAGES: dict[str, Callable[[str, int], Make]] = {NETWORK: _inference, "refinement": _refinement}
"""What other machines can do, and what makes a worker of each."""
