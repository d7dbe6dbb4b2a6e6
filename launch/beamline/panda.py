"""A simulated PandA as ophyd-async has it: its HDF5 file is written here while it flies."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorTriggerLogic,
    Device,
    SignalDict,
    StandardDetector,
    StaticPathProvider,
    UUIDFilenameProvider,
    soft_signal_rw,
)
from ophyd_async.fastcs.panda import DatasetTable, PandaCaptureMode, PandaHdf5DatasetType
from ophyd_async.fastcs.panda._data_logic import PandaHDFDataLogic  # of HDFPanda, which needs EPICS

DATASETS = ("sample_y", "sample_x")


class DataBlock(Device):
    """The signals of the PandA's block DATA, without a PandA."""

    def __init__(self) -> None:
        self.hdf_directory, self.hdf_file_name = soft_signal_rw(str), soft_signal_rw(str)
        self.num_captured, self.create_directory = soft_signal_rw(int), soft_signal_rw(int)
        self.directory_exists, self.capture = soft_signal_rw(bool, initial_value=True), soft_signal_rw(bool)
        self.capture_mode = soft_signal_rw(PandaCaptureMode)
        self.flush_period = soft_signal_rw(float)
        table = DatasetTable(name=list(DATASETS), dtype=[PandaHdf5DatasetType.FLOAT_64] * len(DATASETS))
        self.datasets = soft_signal_rw(DatasetTable, initial_value=table)
        super().__init__()

    async def path(self) -> Path:
        """Returns where the file is to be written."""
        return Path(await self.hdf_directory.get_value()) / await self.hdf_file_name.get_value()


class ExternalTriggers(DetectorTriggerLogic):
    """Each capture or exposure has a trigger from outside."""

    def get_deadtime(self, config_values: SignalDict) -> float:
        """Returns that of a PandA, seconds."""
        return 8e-9

    async def prepare_level(self, num: int) -> None:
        """Has nothing to prepare."""


class TimedAcquisition(DetectorAcquireLogic):
    """Acquires at the pace of a device, beside everything else.

    Parameters
    ----------
    n : int
        Captures or exposures.
    period_s : float
        Between two, seconds.
    n_at_once : int
        That are written, and announced, in one go.
    """

    def __init__(self, n: int, period_s: float, n_at_once: int) -> None:
        self._n, self._period_s, self._n_at_once = n, period_s, n_at_once
        self._task: asyncio.Task[None] | None = None

    async def start_acquiring(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self.acquire())

    async def wait_for_idle(self) -> None:
        """Waits until the last is written."""
        if self._task is not None:
            await self._task

    async def ensure_stopped(self) -> None:
        """Ends where it is."""
        if self._task is not None:
            self._task.cancel()
        self._task = None

    @abstractmethod
    async def acquire(self) -> None:
        """Writes all."""

    async def parts(self) -> AsyncIterator[tuple[int, int]]:
        """Yields the first of each part and the one behind it, when their time has come."""
        for start in range(0, self._n, self._n_at_once):
            stop = min(start + self._n_at_once, self._n)
            await asyncio.sleep((stop - start) * self._period_s)
            yield start, stop


class _Flight(TimedAcquisition):
    """Writes captures (capture, 2), one part of the flight after the other, and shares them."""

    def __init__(
        self, data: DataBlock, captures: NDArray[np.float64], period_s: float, n_at_once: int
    ) -> None:
        super().__init__(len(captures), period_s, n_at_once)
        self._data, self._captures = data, captures

    async def acquire(self) -> None:
        with h5py.File(await self._data.path(), "w", libver="latest") as file:
            datasets = [
                file.create_dataset(name, (0,), float, maxshape=(None,), chunks=(1024,)) for name in DATASETS
            ]
            file.swmr_mode = True
            async for start, stop in self.parts():
                for dataset, values in zip(datasets, self._captures.T, strict=True):
                    dataset.resize(stop, axis=0)
                    dataset[start:stop] = values[start:stop]
                    dataset.flush()
                await self._data.num_captured.set(stop)


class SimulatedPanda(StandardDetector):
    """A PandA that captures two positions, `sample_y` and `sample_x`.

    Parameters
    ----------
    folder : Path
        Of its files.
    captures : (capture, 2) float64
        Positions (y, x), in the unit that the beamline uses.
    period_s : float
        Between two captures, seconds.
    n_at_once : int
        Captures that are written, and announced, in one go.
    """

    def __init__(
        self, folder: Path, captures: NDArray[np.float64], *, period_s: float, n_at_once: int
    ) -> None:
        self.data, paths = DataBlock(), StaticPathProvider(UUIDFilenameProvider(), folder)
        self.add_detector_logics(
            ExternalTriggers(),
            _Flight(self.data, captures, period_s, n_at_once),
            PandaHDFDataLogic(paths, self.data),  # type: ignore[arg-type]
        )
        super().__init__(name="panda")
