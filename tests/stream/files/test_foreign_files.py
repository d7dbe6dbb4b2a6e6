import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import open_recorded
from launch.offline.task import ReconstructOptions
from operators.engine.config import RefinerConfig
from operators.metrics.errors import phase_correlation_coefficient
from stream.documents.position_file import load_positions
from stream.files.cxi import ScanFileError, read_scan
from tests.helpers.launch.foreign_files import write_product, write_ptyd

PRODUCTS = [("product.h5", "diffraction"), ("product-in.h5", "patterns"), ("result.npz", "patterns")]


@pytest.fixture(scope="module")
def simulated():
    """Rows and columns of different number, so that exchanged axes show."""
    return simulate_scan(Simulation(n_rows=5, n_columns=8))


@pytest.fixture(params=["ptyd", *PRODUCTS], ids=str)
def path(request, simulated, tmp_path):
    if request.param == "ptyd":
        write_ptyd(tmp_path / "scan.ptyd", simulated)
        return tmp_path / "scan.ptyd"
    name, stem = request.param
    return write_product(tmp_path, simulated, name=name, stem=stem)


def test_frames_positions_and_geometry_are_those_that_were_written(path, simulated):
    with read_scan(path) as scan:
        assert scan.frames.shape == simulated.frames.shape
        for index in (3, slice(5, 17), np.array([0, 9, 38]), slice(-2, None)):
            np.testing.assert_array_equal(scan.frames[index], simulated.frames[index])
        np.testing.assert_allclose(scan.positions_m, simulated.positions_m, rtol=1e-12)
        assert scan.geometry.object_pixel_m == pytest.approx(simulated.geometry.object_pixel_m)
        assert scan.geometry.energy_ev == pytest.approx(simulated.geometry.energy_ev)
        assert scan.geometry.detector_pixel_m == pytest.approx(simulated.geometry.detector_pixel_m)


def test_the_object_comes_out_as_it_was_simulated_not_mirrored_or_transposed(path, simulated):
    options = ReconstructOptions(refiner=RefinerConfig(probe_step=0), epochs=15, device="numpy")
    with open_recorded(str(path)) as scan:
        result = reconstruct(replace(scan, probe=simulated.probe), options)
    inside = result.bounds.padded(-result.geometry.n_pixels // 2)
    found = result.object[inside.slices_in(result.bounds)]
    truth = simulated.object[inside.top : inside.bottom, inside.left : inside.right]
    assert phase_correlation_coefficient(found, truth) > 0.9
    assert phase_correlation_coefficient(found, truth[::-1]) < 0.5
    assert phase_correlation_coefficient(found, truth[:, ::-1]) < 0.5


def test_a_product_brings_probe_and_mask(simulated, tmp_path):
    with read_scan(write_product(tmp_path, simulated)) as scan:
        np.testing.assert_allclose(scan.probe, simulated.probe)
        assert np.argwhere(~scan.mask).tolist() == [[2, 5]]


def test_patterns_without_a_position_are_kept_and_not_placed(simulated, tmp_path):
    path = write_product(tmp_path, simulated)
    with h5py.File(tmp_path / "diffraction.h5", "r+") as file:
        file["indexes"][[4, 7]] = [-1, 9999]
    with read_scan(path) as scan:
        assert np.flatnonzero(np.isnan(scan.positions_m).any(axis=1)).tolist() == [4, 7]


def test_a_pixel_that_ptypy_weighs_with_zero_in_any_frame_is_invalid(simulated, tmp_path):
    write_ptyd(tmp_path / "scan.ptyd", simulated, invalid=(3, 6))
    with read_scan(tmp_path / "scan.ptyd") as scan:
        assert np.argwhere(~scan.mask).tolist() == [[3, 6]]


def test_the_position_stage_reads_them_too(path, simulated):
    if path.suffix != ".npz":
        np.testing.assert_allclose(load_positions(path, None), simulated.positions_m)


def test_a_ptyd_file_that_does_not_know_its_geometry_leaves_it_open(simulated, tmp_path):
    write_ptyd(tmp_path / "scan.ptyd", simulated)
    with h5py.File(tmp_path / "scan.ptyd", "r+") as file:
        del file["meta/energy"]
        file["meta/energy"] = "None"
    with read_scan(tmp_path / "scan.ptyd") as scan:
        assert scan.geometry is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.move("chunks/1/positions", "chunks/1/lost"), "with data and positions in each"),
        (lambda file: file["meta/center"].write_direct(np.array([10.0, 32.0])), "at the array centre, 32"),
        (lambda file: file["meta/psize"].write_direct(np.array([1e-4, 2e-4])), "wanted square pixels"),
        (lambda file: file.move("chunks", "pieces"), "wanted the group 'entry_1'"),
        (lambda file: shrink(file, "chunks/0/positions"), r"7 frames want numbers \(7, 2\)"),
        (lambda file: shrink(file, "chunks/1/data", axis=2), "wanted square frames"),
    ],
)
def test_what_is_wrong_with_a_ptyd_file_is_named(simulated, tmp_path, spoil, message):
    path = tmp_path / "scan.ptyd"
    write_ptyd(path, simulated)
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(ScanFileError, match=message) as raised:
        read_scan(path)
    assert str(path) in str(raised.value)


def shrink(file, name, axis=0):
    values = np.take(file[name][...], np.arange(file[name].shape[axis] - 1), axis)
    del file[name]
    file[name] = values


def test_what_is_wrong_with_a_product_is_named(simulated, tmp_path):
    path = write_product(tmp_path, simulated)
    with pytest.raises(ScanFileError, match="name the ptychodus product beside it"):
        read_scan(tmp_path / "diffraction.h5")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(path, alone)
    with pytest.raises(
        ScanFileError, match=r"has no patterns: wanted one of diffraction\.h5, .* same folder"
    ):
        read_scan(alone / path.name)
    with h5py.File(path, "r+") as file:
        file.attrs["far_field"] = False
    with pytest.raises(ScanFileError, match="near-field"):
        read_scan(path)
    with h5py.File(path, "r+") as file:
        file.attrs["far_field"] = True
        file["probe_position_indexes"][...] = 0
    with pytest.raises(ScanFileError, match="none of 40 patterns has the index of a position"):
        read_scan(path)
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(ScanFileError, match="of a ptychodus product, found x"):
        read_scan(tmp_path / "other.npz")
