"""One engine in a process of its own, run epoch by epoch as it is told.

Runs in whatever environment has the engine: `python -m tests.benchmarks.engines.worker NAME SCAN.npz` reads
lines and answers with lines of JSON. "run N" answers the wall and processor seconds of N epochs; "save PATH"
writes the object and answers which element should be element (0, 0) of the truth. The first line says which
version runs and how it is configured, or that the engine is not installed.

All start from the same probe and a transparent object, with full steps, as their own documentation has it
for this kind of data; all refine object and probe and leave the positions alone.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

from tests.benchmarks.engines.engine_scan import EngineScan
from tests.benchmarks.engines.peers import PEERS, THREADS, Engine


class PlainNumPy:
    """ePIE as a textbook has it: one position after the other, NumPy and scipy.fft."""

    package, settings = "numpy", "ePIE, alpha 1, beta 1, random order"

    def __init__(self, scan: EngineScan) -> None:
        self._amplitudes, self._corners = np.sqrt(scan.patterns), scan.corners.tolist()
        self._probe, self._object = scan.probe.copy(), np.ones_like(scan.truth)
        self._rng = np.random.default_rng(5)

    def run(self, n_epochs: int) -> None:
        for _ in range(n_epochs):
            for index in self._rng.permutation(len(self._corners)):
                self._visit(index)

    def _visit(self, index: int) -> None:
        n, (row, column) = self._probe.shape[-1], self._corners[index]
        patch, probe = self._object[row : row + n, column : column + n], self._probe
        wave = patch * probe
        far_field = scipy.fft.fft2(wave, norm="ortho")
        far_field *= self._amplitudes[index] / (np.abs(far_field) + np.float32(1e-12))
        change = scipy.fft.ifft2(far_field, norm="ortho", overwrite_x=True)
        change -= wave
        to_object = probe.conj() * change / _peak(probe)
        probe += patch.conj() * change / _peak(patch)
        patch += to_object

    def object(self) -> tuple[np.ndarray, tuple[int, int]]:
        return self._object, (0, 0)


class Ptychostream:
    """This project's engine with its own settings, on as many cores as OMP_NUM_THREADS says."""

    package, settings = "ptychostream", ""
    backend = "compiled"

    def __init__(self, scan: EngineScan) -> None:
        from operators.engine.backends import get_backend
        from operators.engine.config import RefinerConfig
        from operators.engine.refiner import Refiner

        config = RefinerConfig()
        self.settings = f"{config.algorithm}, batches of {config.batch_size}, {self.backend}, {THREADS} cores"
        update = get_backend(self.backend, int(THREADS)).update
        self._refiner = Refiner(config, scan.probe[None], run_update=update)
        self._refiner.append(range(len(scan.corners)), scan.patterns, scan.corners.astype(float))

    def run(self, n_epochs: int) -> None:
        end = self._refiner.epoch + n_epochs
        while self._refiner.epoch < end:
            self._refiner.step()

    def object(self) -> tuple[np.ndarray, tuple[int, int]]:
        snapshot = self._refiner.snapshot()
        row, column = snapshot.bounds.origin
        return snapshot.object, (-row, -column)


class PtychostreamReference(Ptychostream):
    """The same without compiled loops: what an installation without the extra `fast` runs."""

    backend = "numpy"


ENGINES: dict[str, type[Engine]] = {
    "numpy": PlainNumPy,
    "ptychostream": Ptychostream,
    "reference": PtychostreamReference,
    **PEERS,
}
MODULES = {
    "cdtools-py": "cdtools",
    "phaserEM": "phaser",
    "ptychostream": "operators",
}  # those not named as their package


def _peak(values: np.ndarray) -> np.float32:
    return (values.real**2 + values.imag**2).max()


def _serve(engine: Engine, out: Any) -> None:
    for line in sys.stdin:
        task, _, argument = line.strip().partition(" ")
        if task == "run":
            begin = time.perf_counter(), time.process_time()
            engine.run(int(argument))
            answer: dict[str, Any] = {
                "wall_s": time.perf_counter() - begin[0],
                "cpu_s": time.process_time() - begin[1],
            }
        else:
            found, origin = engine.object()
            np.save(argument, found.astype(np.complex64))
            answer = {"origin": origin}
        print(json.dumps(answer), file=out, flush=True)


def main(name: str, path: str) -> None:
    """Serves the engine called `name` until its input ends."""
    kind = ENGINES[name]
    if importlib.util.find_spec(MODULES.get(kind.package, kind.package)) is None:
        print(json.dumps({"missing": kind.package}), flush=True)
        return
    logging.disable(logging.WARNING)
    scan = EngineScan.load(Path(path))
    out = sys.stdout
    # what an engine prints would be taken for answers
    with contextlib.redirect_stdout(sys.stderr):
        engine = kind(scan)
        version = importlib.metadata.version(kind.package)
        print(json.dumps({"version": version, "settings": engine.settings}), file=out, flush=True)
        _serve(engine, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
