"""A simulated detector as ophyd-async has it: its frames go into an HDF5 file while the scan flies."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from ophyd_async.core import (
    DetectorDataLogic,
    StandardDetector,
    StreamableDataProvider,
    StreamResourceDataProvider,
    StreamResourceInfo,
    soft_signal_rw,
)

from launch.beamline.panda import ExternalTriggers, TimedAcquisition
from operators.arrays import Frames

DATASET = "entry/data/data"  # as areaDetector's HDF5 plugin has it


class _Exposures(TimedAcquisition):
    """Writes frames at their time."""

    def __init__(self, path: Path, frames: Frames, rate_hz: float, n_at_once: int) -> None:
        super().__init__(len(frames), 1 / rate_hz, n_at_once)
        self.path, self.frames = path, frames
        self.n_written = soft_signal_rw(int)

    async def acquire(self) -> None:
        shape = self.frames.shape[1:]
        with h5py.File(self.path, "x", libver="latest") as file:
            dataset = file.create_dataset(
                DATASET,
                (0, *shape),
                self.frames.dtype,
                maxshape=(None, *shape),
                chunks=(1, *shape),
                **hdf5plugin.Bitshuffle(cname="lz4"),
            )
            file.swmr_mode = True
            async for start, stop in self.parts():
                dataset.resize(stop, axis=0)
                dataset[start:stop] = self.frames[start:stop]
                dataset.flush()
                await self.n_written.set(stop)


class _InFile(DetectorDataLogic):
    """Says in documents which frames the file has."""

    def __init__(self, exposures: _Exposures) -> None:
        self._exposures = exposures

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        exposures = self._exposures
        shape: Sequence[int] = exposures.frames.shape[1:]
        resource = StreamResourceInfo(
            data_key=datakey_name,
            shape=tuple(shape),
            chunk_shape=(1, *shape),
            dtype_numpy=np.dtype(exposures.frames.dtype).str,
            parameters={"dataset": f"/{DATASET}"},
        )
        return StreamResourceDataProvider(
            uri=f"file://localhost{exposures.path.absolute()}",
            resources=[resource],
            mimetype="application/x-hdf5",
            collections_written_signal=exposures.n_written,
        )


class WritingDetector(StandardDetector):
    """A detector that writes one HDF5 file, and nothing to the network.

    Parameters
    ----------
    path : Path
        The file, which must not be there yet.
    frames : (frame, row, col) unsigned integer
    rate_hz : float
        Frames per second.
    n_at_once : int
        Frames that are written, and announced, in one go.
    """

    def __init__(self, path: Path, frames: Frames, *, rate_hz: float, n_at_once: int = 10) -> None:
        exposures = _Exposures(path, frames, rate_hz, n_at_once)
        self.n_written = exposures.n_written
        self.add_detector_logics(ExternalTriggers(), exposures, _InFile(exposures))
        super().__init__(name="detector")
