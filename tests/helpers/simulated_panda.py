"""A PandA as ophyd-async has it, whose HDF5 file is written here while it flies."""

import asyncio
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
from bluesky.utils import MsgGenerator
from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorTrigger,
    DetectorTriggerLogic,
    Device,
    SignalDict,
    StandardDetector,
    StaticPathProvider,
    TriggerInfo,
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
        """Where the file is to be written."""
        return Path(await self.hdf_directory.get_value()) / await self.hdf_file_name.get_value()


class ExternalTriggers(DetectorTriggerLogic):
    """Capture goes by the detector's triggers."""

    def get_deadtime(self, config_values: SignalDict) -> float:
        return 8e-9

    async def prepare_level(self, num: int) -> None:
        pass


class Capture(DetectorAcquireLogic):
    """Writes captures (capture, 2) at their time, one part of the flight after the other, and shares them."""

    def __init__(self, data: DataBlock, captures: np.ndarray, period_s: float, n_at_once: int) -> None:
        self._data, self._captures = data, captures
        self._period_s, self._n_at_once = period_s, n_at_once
        self._task: asyncio.Task[None] | None = None

    async def start_acquiring(self) -> None:
        self._task = asyncio.create_task(self._capture())

    async def wait_for_idle(self) -> None:
        if self._task is not None:
            await self._task

    async def ensure_stopped(self) -> None:
        self._task = None

    async def _capture(self) -> None:
        with h5py.File(await self._data.path(), "w", libver="latest") as file:
            datasets = [
                file.create_dataset(name, (0,), float, maxshape=(None,), chunks=(1024,)) for name in DATASETS
            ]
            file.swmr_mode = True
            for start in range(0, len(self._captures), self._n_at_once):
                stop = min(start + self._n_at_once, len(self._captures))
                await asyncio.sleep((stop - start) * self._period_s)
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
    period_s : float
        Between two captures.
    n_at_once : int
        Captures that are written, and announced, in one go.
    """

    def __init__(self, folder: Path, captures: np.ndarray, *, period_s: float, n_at_once: int) -> None:
        self.data = DataBlock()
        self.add_detector_logics(
            ExternalTriggers(),
            Capture(self.data, captures, period_s, n_at_once),
            PandaHDFDataLogic(StaticPathProvider(UUIDFilenameProvider(), folder), self.data),
        )
        super().__init__(name="panda")


def fly(panda: SimulatedPanda, n_events: int, captures_per_event: int, series: str) -> MsgGenerator[None]:
    """One flight past the detector's series of that name, as a beamline's plan has it."""
    info = TriggerInfo(
        number_of_events=n_events,
        trigger=DetectorTrigger.EXTERNAL_LEVEL,
        collections_per_event=captures_per_event,
    )

    @bpp.stage_decorator([panda])
    @bpp.run_decorator(md={"detector_series_id": series})
    def inner() -> MsgGenerator[None]:
        yield from bps.prepare(panda, info, wait=True)
        yield from bps.declare_stream(panda, name="primary", collect=True)
        yield from bps.kickoff(panda, wait=True)
        yield from bps.collect_while_completing([panda], [panda], flush_period=0.1, stream_name="primary")

    return (yield from inner())
