from pathlib import Path

import h5py
import numpy as np
import pytest

from stream.files.base import ScanFileError
from stream.files.plain import Layout, read_plain

FRAMES = np.random.default_rng(0).poisson(3, (6, 8, 8)).astype(np.uint16)
POSITIONS_M = np.array([[y, x] for y in (0.0, 1.0) for x in (0.0, 2.0, 4.0)]) * 1e-6


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["entry/frames"], file["entry/raster"] = FRAMES, FRAMES.reshape(2, 3, 8, 8)
        file["pos/table"], file["pos/turned"] = POSITIONS_M * 1e6, POSITIONS_M.T * 1e6
        for axis, values in zip("yx", POSITIONS_M.T * 1e3, strict=True):
            file[f"pos/{axis}"] = values
            file[f"pos/{axis}"].attrs["units"] = "mm"
        file["pos/rows"], file["pos/columns"] = np.array([0.0, 1.0]), np.array([0.0, 2.0, 4.0])
        file["linked"] = h5py.SoftLink("/entry/frames")
        file["image"] = np.zeros((8, 8))
    return path


@pytest.mark.parametrize(
    ("data", "positions", "unit"),
    [
        ("/entry/frames", "/pos/table", "um"),
        ("entry/frames", "pos/table", "um"),
        ("linked", "/pos/turned", "um"),
        ("entry/frames", "/pos/y,/pos/x", ""),
        ("entry/raster", "/pos/y,/pos/x", "mm"),
        ("entry/raster", "/pos/rows,/pos/columns", "um"),
    ],
)
def test_frames_and_positions_are_read_from_where_they_are_said_to_lie(hdf5, data, positions, unit):
    with read_plain(hdf5, Layout(data=data, positions=positions, unit=unit)) as scan:
        np.testing.assert_allclose(scan.positions_m, POSITIONS_M, atol=1e-15)
        np.testing.assert_array_equal(scan.frames[np.array([0, 2, 5])], FRAMES[[0, 2, 5]])
        np.testing.assert_array_equal(scan.frames[3], FRAMES[3])
        assert scan.frames.shape == FRAMES.shape
        assert scan.geometry is None and scan.probe is None
        assert bool(scan.notes) == ("raster" in data), "that it was flattened is said"


def test_a_motor_that_moves_the_sample_has_the_sign_changed_and_columns_can_be_swapped(hdf5):
    layout = Layout(data="entry/frames", positions="pos/table", unit="um", columns=("1", "0"), signs=(-1, 1))
    with read_plain(hdf5, layout) as scan:
        np.testing.assert_allclose(scan.positions_m, POSITIONS_M[:, ::-1] * [-1, 1], atol=1e-15)


def test_numpy_files_are_scans_with_a_table_beside_them(tmp_path):
    np.save(tmp_path / "frames.npy", FRAMES)
    np.savez(tmp_path / "scan.npz", stack=FRAMES, where=POSITIONS_M)
    np.savetxt(tmp_path / "positions.csv", POSITIONS_M * 1e9, delimiter=",")
    table = Layout(positions=str(tmp_path / "positions.csv"), unit="nm")
    for name, layout in (("frames.npy", table), ("scan.npz", Layout(positions="where", unit="m"))):
        with read_plain(tmp_path / name, layout) as scan:
            np.testing.assert_array_equal(scan.frames[:], FRAMES)
            np.testing.assert_allclose(scan.positions_m, POSITIONS_M, atol=1e-15)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(), r"say which array holds the frames, --data; found .*/entry/frames \(6, 8, 8\)"),
        (Layout(data="entry/fames"), r"there is no array entry/fames; found /entry/"),
        (Layout(data="image"), r"image is float64 \(8, 8\), wanted frames \(frame, row, col\)"),
        (Layout(data="entry/frames"), r"give the positions, --positions FILE or the name of an array"),
        (Layout(data="entry/frames", positions="pos/nothing"), "pos/nothing is neither a file nor an array"),
        (
            Layout(data="entry/frames", positions="pos/table"),
            "does not say the unit of the positions: give --unit",
        ),
        (Layout(data="entry/frames", positions="pos/y"), r"wanted positions \(frame, 2\)"),
        (Layout(data="entry/frames", positions="pos/rows,pos/columns"), "2 values of y and 3 of x"),
        (Layout(data="entry/frames", positions="image", unit="m"), "found 8 columns: say which"),
    ],
)
def test_what_is_missing_is_named_with_file_and_option(hdf5, layout, words):
    with pytest.raises(ValueError, match=words) as caught, read_plain(hdf5, layout):
        pass
    assert hdf5.name in str(caught.value)


def test_as_many_positions_as_frames_are_wanted(hdf5, tmp_path):
    np.save(tmp_path / "short.npy", POSITIONS_M[:4])
    layout = Layout(data="entry/frames", positions=str(tmp_path / "short.npy"), unit="m")
    with (
        pytest.raises(ScanFileError, match=r"has 4 positions, .*scan\.h5 has 6 frames"),
        read_plain(hdf5, layout),
    ):
        pass


@pytest.mark.parametrize("name", ["scan.h5", "scan.npy", "scan.npz"])
def test_a_file_of_another_kind_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no array at all")
    with pytest.raises(ValueError, match=rf"{name}: (it is no HDF5 file|wanted .* numpy\.savez? writes)"):
        read_plain(tmp_path / name, Layout())
