"""The run of a batch on a GPU, recorded once and replayed."""

from collections.abc import Callable

import torch
from torch import Tensor

Run = Callable[[Tensor], tuple[Tensor, ...]]

N_RUNS_BEFORE_RECORDING = 3  # torch chooses algorithms and makes FFT plans: that cannot be recorded


def recorded(run: Run, batch: Tensor) -> Run:
    """Return `run` as a CUDA graph: one launch instead of hundreds, which small networks wait for.

    Parameters
    ----------
    run : callable
        From a batch to tensors, on the device and without waiting for it.
    batch : Tensor
        On the GPU; every later batch has its shape, or fewer frames.

    Returns
    -------
    callable
        Its results hold until the next call. It is `run` itself where the GPU cannot record it.
    """
    given, stream = batch.clone(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(N_RUNS_BEFORE_RECORDING):
            run(given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        # Only of this thread: another may go on with the run that is replaced.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = run(given)
    except RuntimeError:
        return run

    def replay(batch: Tensor) -> tuple[Tensor, ...]:
        # What is left of an earlier batch behind a smaller one costs time and changes nothing.
        n_frames = len(batch)
        given[:n_frames].copy_(batch, non_blocking=True)
        graph.replay()
        return tuple(result[:n_frames] for result in results)

    return replay
