"""Other engines that the worker runs, each as its own documentation has it for this kind of data.

Apart from the worker because they are its bulk. They run in environments of their own, which have none of
this project's dependencies but NumPy: everything else is imported where it is used.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tests.benchmarks.engines.engine_scan import DISTANCE_M, PITCH_M, WAVELENGTH_M, EngineScan

THREADS = os.environ.get("OMP_NUM_THREADS", "1")
KEV_M = 1.23984193e-9  # photon energy times wavelength


class Engine(Protocol):
    """What a worker needs of an engine."""

    package: str
    settings: str

    def __init__(self, scan: EngineScan) -> None: ...

    def run(self, n_epochs: int) -> None:
        """Visits every frame that often."""

    def object(self) -> tuple[np.ndarray, tuple[int, int]]:
        """Returns the object, and which element should be element (0, 0) of the truth."""


class PtyLab:
    """PtyLab's ePIE on the CPU."""

    package, settings = "PtyLab", "ePIE, betaObject 1, betaProbe 1, random order"
    engine, step = "ePIE", 1.0

    def __init__(self, scan: EngineScan) -> None:
        import h5py
        from PtyLab import Engines
        from PtyLab.ExperimentalData.ExperimentalData import ExperimentalData
        from PtyLab.Monitor.Monitor import DummyMonitor
        from PtyLab.Params.Params import Params
        from PtyLab.Reconstruction.Reconstruction import Reconstruction

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan.h5"
            with h5py.File(path, "w") as file:
                file["ptychogram"] = np.fft.fftshift(scan.patterns, axes=(1, 2))
                file["encoder"] = (scan.corners - scan.corners.mean(axis=0)) * scan.pixel_m
                file["dxd"], file["zo"], file["wavelength"] = PITCH_M, DISTANCE_M, WAVELENGTH_M
                file["entrancePupilDiameter"] = 60 * scan.pixel_m
            data = ExperimentalData(str(path), operationMode="CPM")
        params = Params()
        params.gpuSwitch, params.positionOrder, params.propagatorType = False, "random", "Fraunhofer"
        params.probePowerCorrectionSwitch = False
        self._state = Reconstruction(data, params)
        self._state.initializeObjectProbe()
        shape = self._state.probe.shape
        self._state.probe = np.ascontiguousarray(np.broadcast_to(scan.probe, shape)).astype(np.complex64)
        self._state.object = np.ones(self._state.object.shape, np.complex64)
        self._engine = getattr(Engines, self.engine)(self._state, data, params, DummyMonitor())
        self._engine.betaProbe = self._engine.betaObject = self.step
        self._first_corner = scan.corners[0]

    def run(self, n_epochs: int) -> None:
        self._engine.numIterations = n_epochs
        self._engine.reconstruct()

    def object(self) -> tuple[np.ndarray, tuple[int, int]]:
        found = np.asarray(self._state.object).reshape(self._state.object.shape[-2:])
        row, column = np.rint(np.asarray(self._state.positions[0]) - self._first_corner).astype(int)
        return found, (int(row), int(column))


class PtyLabMomentum(PtyLab):
    """PtyLab's mPIE, its recommended engine, with its default steps."""

    settings = "mPIE, betaObject 0.25, betaProbe 0.25, random order"
    engine, step = "mPIE", 0.25


class CDTools:
    """cdtools' SimplePtycho by Adam on the CPU."""

    package, settings = "cdtools-py", "SimplePtycho, Adam, batches of 15, learning rate 0.005"
    batch_size, learning_rate = 15, 0.005

    def __init__(self, scan: EngineScan) -> None:
        import torch
        from cdtools.datasets import Ptycho2DDataset
        from cdtools.models import SimplePtycho

        torch.set_num_threads(int(THREADS))
        # their axes: row towards -y, column towards -x
        basis = np.array([[0, -PITCH_M], [-PITCH_M, 0], [0, 0]])
        y, x = (scan.corners * scan.pixel_m).T
        self._data = Ptycho2DDataset(
            np.stack([-x, -y, np.zeros_like(x)], axis=1).astype(np.float32),
            np.fft.fftshift(scan.patterns, axes=(1, 2)),
            wavelength=torch.as_tensor(WAVELENGTH_M, dtype=torch.float32),
            detector_geometry={
                "distance": DISTANCE_M,
                "basis": torch.as_tensor(basis, dtype=torch.float32),
                "corner": None,
            },
        )
        self._model = SimplePtycho.from_dataset(self._data)
        start = torch.from_numpy(scan.probe.copy()) / self._model.probe_norm
        self._model.probe.data = start.to(self._model.probe.dtype)
        self._truth_shape = scan.truth.shape

    def run(self, n_epochs: int) -> None:
        settings = {"batch_size": self.batch_size, "lr": self.learning_rate, "thread": False}
        for _ in self._model.Adam_optimize(n_epochs, self._data, **settings):
            pass

    def object(self) -> tuple[np.ndarray, tuple[int, int]]:
        found = self._model.obj.detach().numpy()
        return _inside_padding(found.reshape(found.shape[-2:]), self._truth_shape)


class PtyChi:
    """pty-chi's ePIE, batched, on the CPU."""

    package, settings = "ptychi", "ePIE, batches of 32, alpha 1, SGD steps 1, random order"

    def __init__(self, scan: EngineScan) -> None:
        import torch
        from ptychi import api
        from ptychi.api.task import PtychographyTask

        torch.set_num_threads(int(THREADS))
        options = api.EPIEOptions()
        options.data_options.fft_shift = False
        options.object_options.pixel_size_m = scan.pixel_m
        for part in (options.object_options, options.probe_options):
            part.optimizable, part.optimizer, part.step_size, part.alpha = True, api.Optimizers.SGD, 1.0, 1.0
        options.probe_position_options.optimizable = False
        reconstructor = options.reconstructor_options
        reconstructor.batch_size, reconstructor.num_epochs, reconstructor.random_seed = 32, 1, 1
        reconstructor.batching_mode = api.BatchingModes.RANDOM
        reconstructor.default_device = api.Devices.CPU
        centre = np.floor((scan.corners.max(axis=0) + scan.corners.min(axis=0)) / 2)
        y, x = (scan.corners - centre).astype(np.float32).T
        self._truth_shape = scan.truth.shape
        self._task = PtychographyTask(
            options,
            diffraction_data=scan.patterns,
            object_data=np.ones((1, *(n + 60 for n in scan.truth.shape)), np.complex64),
            probe_data=(scan.probe / scan.n_pixels)[None, None],  # its transform is not normalised
            probe_position_x_px=x,
            probe_position_y_px=y,
        )
        torch.set_num_threads(int(THREADS))

    def run(self, n_epochs: int) -> None:
        self._task.run(n_epochs)

    def object(self) -> tuple[np.ndarray, tuple[int, int]]:
        found = self._task.get_data_to_cpu("object", as_numpy=True)[0]
        return _inside_padding(found, self._truth_shape)


class Phaser:
    """phaser's ePIE, in groups, with its NumPy backend."""

    package, settings = "phaserEM", "ePIE, NumPy, groups of 32, beta_object 1, beta_probe 1, random order"

    def __init__(self, scan: EngineScan) -> None:
        import torch
        from phaser import state
        from phaser.utils.num import Sampling
        from phaser.utils.object import ObjectSampling

        torch.set_num_threads(int(THREADS))
        shape = (scan.n_pixels, scan.n_pixels)
        sampling = Sampling(shape, sampling=(1.0, 1.0))
        positions = (scan.corners - scan.corners.mean(axis=0).round()).astype(np.float32)
        objects = ObjectSampling.from_scan(positions, sampling.sampling, sampling.extent / 2 + 5)
        ones, no_slices = np.ones((1, *objects.shape), np.complex64), np.array([], np.float32)
        self._state = state.ReconsState(
            iter=state.IterState.empty(),
            wavelength=1e-3,
            probe=state.PixelatedProbeState(sampling, scan.probe[None].copy()),
            object=state.PixelatedObjectState(objects, ones, no_slices),
            scan=state.ScanState(positions, positions.copy()),
        )
        self._patterns = state.Patterns(scan.patterns, np.ones(shape, np.float32))
        windows = objects.slice_at_pos(positions[0], shape)
        self._origin = tuple(int(part.start) for part in windows) - scan.corners[0]

    def run(self, n_epochs: int) -> None:
        import pane
        import phaser.plan  # noqa: F401 -- names the engines
        from phaser.hooks import EngineHook

        plan = {
            "type": "conventional",
            "solver": {"type": "epie"},
            "noise_model": {"type": "amplitude"},
            "niter": n_epochs,
            "grouping": 32,
            "probe_modes": 1,
            "bwlim_frac": None,
            "group_constraints": [],
            "iter_constraints": [],
            "calc_error": False,
        }
        engine = pane.convert(plan, EngineHook)
        arguments = {"data": self._patterns, "state": self._state, "dtype": np.float32, "xp": np}
        self._state = engine(arguments | {"recons_name": "benchmark", "seed": self._state.iter.total_iter})

    def object(self) -> tuple[np.ndarray, tuple[int, int]]:
        room = 16
        row, column = (int(at) + room for at in self._origin)
        return np.pad(self._state.object.data[0], room, mode="edge"), (row, column)


class Ptypy:
    """ptypy's ePIE on the CPU, one position after the other."""

    package, settings = "ptypy", "ePIE, alpha 1, beta 1, random order"

    def __init__(self, scan: EngineScan) -> None:
        from ptypy.core import Ptycho
        from ptypy.utils import Param

        data = Param(
            name=_register_with_ptypy(scan),
            shape=scan.n_pixels,
            psize=PITCH_M,
            distance=DISTANCE_M,
            energy=KEV_M / WAVELENGTH_M,
            auto_center=False,
        )
        engine = Param(
            name="EPIE",
            alpha=1.0,
            beta=1.0,
            probe_update_start=0,
            probe_support=None,
            compute_log_likelihood=False,
            numiter=10**6,  # it refuses to go on after that many
        )
        scans = Param(scan=Param(name="GradFull", data=data))  # the model of its own example of ePIE
        # level 2: data and views of it, but neither server nor plots nor files
        self._ptycho = Ptycho(Param(scans=scans, engines=Param(engine=engine)), level=2)
        self._corners = scan.corners
        pod = self._any_pod()
        # its far field applies the quadratic phase that all others have in the probe
        pod.pr_view.storage.fill(scan.probe * pod.geometry.propagator.pre_curve.conj())
        pod.ob_view.storage.fill(1.0)
        self._ptycho.init_engine()
        (self._engine,) = self._ptycho.engines.values()
        self._ptycho.runtime.iter_info = []  # `iterate` adds to it; only Ptycho.run would make it
        self._engine.initialize()
        self._engine.prepare()

    def run(self, n_epochs: int) -> None:
        self._engine.iterate(n_epochs)

    def object(self) -> tuple[np.ndarray, tuple[int, int]]:
        pod = self._any_pod()
        row, column = pod.ob_view.dlow - self._corners[pod.di_view.layer]
        return pod.ob_view.storage.data[0], (int(row), int(column))

    def _any_pod(self) -> Any:
        """Return what joins a frame's views of probe, object and data."""
        return next(iter(self._ptycho.pods.values()))


PEERS: dict[str, type[Engine]] = {
    "ptylab": PtyLab,
    "ptylab-mpie": PtyLabMomentum,
    "cdtools": CDTools,
    "ptychi": PtyChi,
    "phaser": Phaser,
    "ptypy": Ptypy,
}


def _inside_padding(found: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the object with room around it, and where one of `shape` is in its middle."""
    room = 16
    origin = tuple((a - b) // 2 + room for a, b in zip(found.shape, shape, strict=True))
    return np.pad(found, room, mode="edge"), origin


def _register_with_ptypy(scan: EngineScan) -> str:
    """Return the name under which ptypy, which takes data from classes it knows by name, finds `scan`."""
    from ptypy.core.data import PtyScan
    from ptypy.experiment import register

    patterns = np.fft.fftshift(scan.patterns, axes=(1, 2))

    @register()
    class BenchmarkScan(PtyScan):
        """The frames in memory; nothing is masked."""

        def load_positions(self) -> np.ndarray:
            return scan.corners * scan.pixel_m

        def load(self, indices: list[int]) -> tuple[dict[int, np.ndarray], dict, dict]:
            return {index: patterns[index] for index in indices}, {}, {}

    return BenchmarkScan.__name__
