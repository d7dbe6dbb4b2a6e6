from pathlib import Path

import h5py
import numpy as np

from launch.beamline.simulation import Simulation, simulate_scan
from stream.files.sources import files_of
from tests.helpers.launch.foreign_files import write_product


def test_a_plain_file_is_read_alone_and_what_is_no_file_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"anything")
    assert files_of(tmp_path / "a.npz") == [tmp_path / "a.npz"]
    assert files_of(tmp_path / "uid") == files_of(tmp_path) == []


def test_files_that_hdf5_draws_on_are_read_as_well(tmp_path: Path) -> None:
    frames = np.ones((2, 4, 4), np.uint16)
    for name in ("linked", "virtual"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["data"] = frames
    frames.tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "between.h5", "w") as file:
        file["data"] = h5py.ExternalLink("linked.h5", "/data")
    layout = h5py.VirtualLayout((2, 4, 4), np.uint16)
    layout[:] = h5py.VirtualSource("virtual.h5", "data", (2, 4, 4))
    with h5py.File(tmp_path / "master.h5", "w") as file:
        entry = file.create_group("entry/deep")
        entry["linked"] = h5py.ExternalLink("between.h5", "/data")
        entry["missing"] = h5py.ExternalLink("missing.h5", "/data")
        entry["loop"], entry["soft"] = file["entry"], h5py.SoftLink("/entry/deep/linked")
        entry.create_virtual_dataset("virtual", layout)
        entry.create_dataset("raw", (2, 4, 4), "<u2", external=[(str(tmp_path / "raw.bin"), 0, 64)])
    names = {path.name for path in files_of(tmp_path / "master.h5")}
    assert names == {"master.h5", "between.h5", "linked.h5", "virtual.h5", "raw.bin"}


def test_a_product_of_ptychodus_is_read_with_the_patterns_beside_it(tmp_path: Path) -> None:
    product = write_product(tmp_path, simulate_scan(Simulation(n_rows=2, n_columns=2)))
    assert files_of(product) == [product, tmp_path / "diffraction.h5"]
