"""Detectors that write files, simulated: each message of a series goes where such a detector puts it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import tifffile

from stream.detector.protocol import DetectorMessage, EncodedFrame, EndMessage, ImageMessage, StartMessage
from stream.files.cxi import JOULES_PER_EV

FRAMES_PER_FILE = 100  # of DECTRIS' data files
_FILTERS: dict[str, dict[str, Any]] = {
    "bslz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bszstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    "lz4": dict(hdf5plugin.LZ4()),
    "": {},
}


class FileSender:
    """Sender: into files of a folder; a file is always there to be written to.

    Parameters
    ----------
    folder : Path
        Made where it is missing. No file in it is replaced.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.where = folder, str(folder)
        self._start: StartMessage | None = None

    def prepare(self, message: DetectorMessage) -> DetectorMessage:
        """Returns the message."""
        return message

    def is_heard(self, timeout_s: float) -> bool:
        """Says so: files wait for whoever reads them."""
        return True

    def send(self, prepared: DetectorMessage, timeout_s: float) -> bool:
        """Writes what a message says."""
        match prepared:
            case StartMessage():
                self._end()
                self._start = prepared
                self._begin(prepared)
            case ImageMessage():
                self._write(prepared.image_id, prepared.frame())
            case EndMessage():
                self._end()
        return True

    def close(self) -> None:
        """Closes the files."""
        self._end()

    def _begin(self, start: StartMessage) -> None:
        """Begin a series."""

    def _write(self, number: int, frame: EncodedFrame) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        """End the series."""

    @property
    def _name(self) -> str:
        return self._start.key if self._start else "frames"


class Hdf5Sender(FileSender):
    """One HDF5 file for each series, shared with its readers (SWMR) from the first frame on."""

    dataset, suffix = "entry/data/data", ".h5"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file: h5py.File | None = None

    def _write(self, number: int, frame: EncodedFrame) -> None:
        if self._file is None:
            self._file = self._created(frame)
        append(self._file[self.dataset], number, frame)

    def _created(self, frame: EncodedFrame) -> h5py.File:
        file = h5py.File(self.folder / f"{self._name}{self.suffix}", "x", libver="latest")
        create_frames(file, self.dataset, frame)
        self._describe(file)
        file.swmr_mode = True
        return file

    def _describe(self, file: h5py.File) -> None:
        """Write what else a file has: NeXus."""
        for name, value in _geometry(self._start).items():
            file[f"entry/instrument/{name}"] = value
            file[f"entry/instrument/{name}"].attrs["units"] = "eV" if "energy" in name else "m"
        for group, kind in (("entry", "NXentry"), ("entry/data", "NXdata")):
            file[group].attrs["NX_class"] = kind
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "data"
        file["entry/data"].attrs["signal"] = "data"

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class CxiSender(Hdf5Sender):
    """The same as NXcxi_ptycho has it: names and units of CXI, classes of NeXus."""

    dataset, suffix = "entry_1/instrument_1/detector_1/data", ".cxi"

    def _describe(self, file: h5py.File) -> None:
        file["cxi_version"], file["entry_1/definition"] = 160, "NXcxi_ptycho"
        instrument = file["entry_1/instrument_1"]
        for name, value in _geometry(self._start).items():
            if name == "beam/incident_energy":
                instrument["source_1/energy"] = value * JOULES_PER_EV
                instrument["source_1/energy"].attrs["units"] = "J"
            else:
                instrument[name.replace("detector/", "detector_1/")] = value
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/{self.dataset}")
        kinds = {"entry_1": "NXentry", "entry_1/instrument_1": "NXinstrument", "entry_1/data_1": "NXdata"}
        for group, kind in {**kinds, "entry_1/instrument_1/detector_1": "NXdetector"}.items():
            file[group].attrs["NX_class"] = kind
        file["entry_1/data_1"].attrs["signal"] = "data"


class DectrisFileSender(FileSender):
    """A master file with the instrument, and data files that it links to, each written whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._held: dict[int, EncodedFrame] = {}
        self._n_files = 0

    def _begin(self, start: StartMessage) -> None:
        n_images = start.number_of_images or 0
        with h5py.File(self.folder / f"{start.key}_master.h5", "x") as file:
            specific = file.create_group("entry/instrument/detector/detectorSpecific")
            specific["nimages"], specific["ntrigger"] = n_images, 1
            for name, value in _geometry(start).items():
                place = f"entry/instrument/{name.replace('distance', 'detector_distance')}"
                file[place] = value
                file[place].attrs["units"] = "eV" if "energy" in name else "m"
            for index in range(-(-n_images // FRAMES_PER_FILE)):
                target = f"{start.key}_data_{index + 1:06d}.h5"
                file[f"entry/data/data_{index + 1:06d}"] = h5py.ExternalLink(target, "/entry/data/data")

    def _write(self, number: int, frame: EncodedFrame) -> None:
        self._held[number] = frame
        if number % FRAMES_PER_FILE == FRAMES_PER_FILE - 1:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        index = min(self._held) // FRAMES_PER_FILE
        frames = {n: self._held.pop(n) for n in sorted(self._held) if n // FRAMES_PER_FILE == index}
        with h5py.File(self.folder / f"{self._name}_data_{index + 1:06d}.h5", "x") as file:
            create_frames(file, "entry/data/data", next(iter(frames.values())))
            for number, frame in frames.items():
                append(file["entry/data/data"], number - index * FRAMES_PER_FILE, frame)
            attributes = file["entry/data/data"].attrs
            attributes["image_nr_low"] = index * FRAMES_PER_FILE + 1
            attributes["image_nr_high"] = max(frames) + 1
        self._flush()

    def _end(self) -> None:
        self._flush()


class TiffSender(FileSender):
    """A folder of TIFFs for each series, numbered from 1."""

    def _write(self, number: int, frame: EncodedFrame) -> None:
        folder = self.folder / self._name
        folder.mkdir(exist_ok=True)
        tifffile.imwrite(folder / f"frame_{number + 1:06d}.tif", frame.decode())


def create_frames(file: h5py.File, name: str, like: EncodedFrame) -> None:
    """Makes an empty dataset (frame, row, col) for frames like this one, each a chunk of its own."""
    file.create_dataset(
        name,
        (0, *like.shape),
        like.dtype,
        maxshape=(None, *like.shape),
        chunks=(1, *like.shape),
        **_FILTERS[like.compression],
    )


def append(dataset: Any, number: int, frame: EncodedFrame) -> None:
    """Writes a frame as it is compressed, and tells readers."""
    if number >= dataset.shape[0]:
        dataset.resize(number + 1, axis=0)
    dataset.id.write_direct_chunk((number, 0, 0), np.frombuffer(frame.data, np.uint8))
    dataset.flush()


def _geometry(start: StartMessage | None) -> dict[str, float]:
    if start is None:
        return {}
    told = {
        "beam/incident_energy": start.incident_energy,
        "detector/distance": start.detector_distance_m,
        "detector/x_pixel_size": start.pixel_size_x,
        "detector/y_pixel_size": start.pixel_size_y,
    }
    return {name: value for name, value in told.items() if value is not None}


FILE_SENDERS: dict[str, Callable[[Path], FileSender]] = {
    "hdf5": Hdf5Sender,
    "cxi": CxiSender,
    "dectris-files": DectrisFileSender,
    "tiff": TiffSender,
}
"""Detectors that write files, by the names that `replay` has for them."""
