"""Files that others made: what they may have read, and that damage is named and never a traceback."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.config.config import DEMO_WEIGHTS
from launch.config.probe import read_card
from stream.files.arrays import read_archive, read_array
from stream.files.base import ScanFileError
from stream.files.cxi import is_scan, read_scan
from stream.files.hdf5 import open_hdf5
from stream.files.plain import Layout, read_plain
from stream.files.probe import read_probe
from stream.files.sources import files_of
from stream.files.tables import read_table
from stream.files.weights import load_network
from tests.helpers.launch.foreign_files import write_product, write_ptyd

FRAMES = np.arange(2 * 4 * 4, dtype=np.uint16).reshape(2, 4, 4)
N_DAMAGED = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the file lies that is read; what it must not read lies beside it."""
    folder = tmp_path / "sent"
    folder.mkdir()
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = FRAMES
    FRAMES.tofile(tmp_path / "secret.bin")
    return folder


def link(name: str) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        file["entry/frames"] = h5py.ExternalLink(name, "/data")

    return make


def virtual(name: str) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
        layout[:] = h5py.VirtualSource(name, "data", FRAMES.shape)
        file.create_group("entry").create_virtual_dataset("frames", layout)

    return make


def raw(name: str) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        external = [(name, 0, FRAMES.nbytes)]
        file.create_dataset("entry/frames", FRAMES.shape, FRAMES.dtype, external=external)

    return make


def written(path: Path, make: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "w") as file:
        make(file)
    return path


def readers(path: Path) -> Iterator[Callable[[], object]]:
    yield lambda: open_hdf5(path).close()
    yield lambda: files_of(path)
    yield lambda: is_scan(path)
    yield lambda: read_scan(path)
    yield lambda: read_probe(path)
    yield lambda: read_plain(path, Layout(data="/entry/frames"))


@pytest.mark.parametrize("make", [link, virtual, raw])
@pytest.mark.parametrize("is_absolute", [True, False])
def test_no_reader_follows_a_file_out_of_its_folder(folder, monkeypatch, make, is_absolute):
    secret = folder.parent / ("secret.bin" if make is raw else "secret.h5")
    # Raw storage is looked for where the program runs, and so is what does not lie beside the file.
    monkeypatch.chdir(folder.parent)
    strange = written(folder / "strange.h5", make(str(secret) if is_absolute else secret.name))
    for read in readers(strange):
        with pytest.raises(ScanFileError, match=f"{strange}: /entry/frames lies in {secret}, outside"):
            read()


def test_nor_by_a_way_over_a_file_that_lies_in_it(folder):
    written(folder / "between.h5", link("../secret.h5"))
    strange = written(folder / "strange.h5", link("between.h5"))
    for read in readers(strange):
        with pytest.raises(ScanFileError, match=r"/entry/frames lies in .*secret\.h5, outside"):
            read()


@pytest.mark.parametrize("make", [link, virtual])
@pytest.mark.parametrize("where", ["data.h5", "below/data.h5", "/gone/with/the/machine/data.h5"])
def test_what_lies_in_the_folder_is_read_as_ever(folder, make, where):
    there = folder / (where if not where.startswith("/") else "data.h5")
    there.parent.mkdir(exist_ok=True)
    written(there, lambda file: file.__setitem__("data", FRAMES))
    master = written(folder / "master.h5", make(where))
    with open_hdf5(master) as file:
        np.testing.assert_array_equal(file["entry/frames"], FRAMES)
    assert files_of(master) == [master, there]


def test_a_symbolic_link_in_the_folder_is_the_users_own(folder):
    (folder / "data.h5").symlink_to(folder.parent / "secret.h5")
    with open_hdf5(written(folder / "master.h5", link("data.h5"))) as file:
        np.testing.assert_array_equal(file["entry/frames"], FRAMES)


def scan(path: Path) -> None:
    with read_scan(path) as found:
        found.frames[: len(found.frames)]


def _saved(save: Callable[..., None], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def _contents(folder: Path) -> dict[str, bytes]:
    simulated, probe = simulate_scan(Simulation(n_rows=2, n_columns=2)), np.ones((1, 16, 16), np.complex64)
    write_scan(folder / "made.cxi", simulated, "test")
    write_ptyd(folder / "made.ptyd", simulated)
    return {
        "small.npz": _saved(np.savez_compressed, probe=probe),
        "large.npz": _saved(np.savez, probe=probe, probe_position_x_m=probe, probe_position_y_m=probe),
        "array.npy": _saved(np.save, probe),
        "scan.cxi": (folder / "made.cxi").read_bytes(),
        "scan.ptyd": (folder / "made.ptyd").read_bytes(),
        "product.h5": write_product(folder, simulated).read_bytes(),
        "net.safetensors": Path(DEMO_WEIGHTS).read_bytes()[:200_000],
    }


READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    ".npz": (read_archive, read_probe, scan, is_scan, files_of),
    ".npy": (read_array, read_probe, read_table),
    ".cxi": (scan, read_probe, is_scan, files_of),
    ".ptyd": (scan, read_probe, is_scan, files_of),
    ".h5": (scan, read_probe, is_scan, files_of),
    ".safetensors": (load_network, read_card),
}


def damaged(content: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Cut off, and with some bytes changed, anywhere or in the first ones, where the structure is."""
    for number in range(N_DAMAGED):
        if number % 3 == 0:
            yield content[: rng.integers(len(content))]
            continue
        changed = np.frombuffer(content, np.uint8).copy()
        within = len(changed) if number % 3 == 1 else min(len(changed), 3000)
        where = rng.integers(within, size=rng.integers(1, 6))
        changed[where] = rng.integers(256, size=len(where))
        yield changed.tobytes()


@pytest.mark.filterwarnings("ignore")  # of values that are no longer numbers
def test_a_damaged_file_is_refused_with_a_sentence_that_names_it(tmp_path):
    rng = np.random.default_rng(0)
    for name, content in _contents(tmp_path).items():
        path = tmp_path / name
        for damage in damaged(content, rng):
            path.write_bytes(damage)
            for read in READERS[path.suffix]:
                try:
                    read(path)
                except ValueError as error:
                    assert str(tmp_path) in str(error), (name, read, error)  # or the file beside it
