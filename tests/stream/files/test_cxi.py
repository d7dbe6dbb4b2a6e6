import h5py
import numpy as np
import pytest

from stream.files.cxi import ScanFileError, read_scan
from tests.helpers.recorded_data import SHARED_DATA, needs_shared_data

N = 8
SAMPLE_M = np.array([[1e-6, 2e-6, 0], [3e-6, 5e-6, 0], [4e-6, 9e-6, 0]])  # x, y, z of the sample's motion
ENERGY_J = 8800 * 1.602176634e-19
DETECTOR, SOURCE = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"


@pytest.fixture
def values():
    """What a complete file holds, by path."""
    rng = np.random.default_rng(0)
    return {
        f"{DETECTOR}/data": rng.integers(0, 99, (3, N, N), dtype=np.uint16),
        f"{DETECTOR}/mask": np.zeros((N, N), np.uint32),
        f"{DETECTOR}/distance": 1.92,
        f"{DETECTOR}/x_pixel_size": 75e-6,
        f"{DETECTOR}/y_pixel_size": 75e-6,
        f"{SOURCE}/energy": ENERGY_J,
        f"{SOURCE}/illumination": np.ones((2, N, N), np.complex64),
        "entry_1/sample_1/geometry_1/translation": SAMPLE_M,
    }


@pytest.fixture
def write(tmp_path):
    def write(values):
        path = tmp_path / "star.cxi"
        with h5py.File(path, "w") as file:
            for name, value in values.items():
                file[name] = value
        return path

    return write


def test_a_complete_file_gives_frames_geometry_probe_and_mask(write, values):
    values[f"{DETECTOR}/mask"][2, 5] = 1
    with read_scan(write(values)) as scan:
        np.testing.assert_array_equal(scan.frames[1:], values[f"{DETECTOR}/data"][1:])
        assert scan.name == "star"
        assert scan.geometry.energy_ev == pytest.approx(8800)
        assert (scan.geometry.detector_distance_m, scan.geometry.n_pixels) == (1.92, N)
        assert scan.geometry.detector_pixel_m == 75e-6
        assert scan.probe.shape == (2, N, N)
        assert np.argwhere(~scan.mask).tolist() == [[2, 5]]


def test_the_probe_moves_against_the_sample(write, values):
    """CXI records (x, y, z) of the sample; we want (y, x) of the probe on it."""
    with read_scan(write(values)) as scan:
        np.testing.assert_array_equal(scan.positions_m, [[-2e-6, -1e-6], [-5e-6, -3e-6], [-9e-6, -4e-6]])


def test_a_background_is_read_where_there_is_one_and_must_fit(write, values):
    with read_scan(write(values)) as scan:
        assert scan.background is None
    values[f"{DETECTOR}/background"] = np.full((N, N), 1.5)
    with read_scan(write(values)) as scan:
        assert scan.background.tolist() == values[f"{DETECTOR}/background"].tolist()
    values[f"{DETECTOR}/background"] = np.full((N, N + 1), 1.5)
    with pytest.raises(ScanFileError, match=r"background has shape \(8, 9\), frames have \(8, 8\)"):
        read_scan(write(values))


def test_frames_stay_in_the_file_until_they_are_sliced(write, values):
    with read_scan(write(values)) as scan:
        held = scan.frames
        assert held[0].shape == held.shape[1:]
    with pytest.raises(ValueError, match="cannot read it"):  # the file is closed with the context
        held[0]


def test_a_wavelength_does_instead_of_an_energy(write, values):
    del values[f"{SOURCE}/energy"]
    values[f"{SOURCE}/wavelength"] = 1.408911340909091e-10
    with read_scan(write(values)) as scan:
        assert scan.geometry.energy_ev == pytest.approx(8800, rel=1e-6)


@pytest.mark.parametrize("name", [f"{SOURCE}/energy", f"{DETECTOR}/distance", f"{DETECTOR}/x_pixel_size"])
def test_without_all_of_its_numbers_there_is_no_geometry(write, values, name):
    del values[name]
    with read_scan(write(values)) as scan:
        assert scan.geometry is None


def test_frames_and_positions_are_found_where_others_put_them(write, values):
    values["entry_1/data_1/data"] = values.pop(f"{DETECTOR}/data")
    values["entry_1/data_1/translation"] = values.pop("entry_1/sample_1/geometry_1/translation")
    with read_scan(write(values)) as scan:
        assert scan.frames.shape == (3, N, N)
        assert len(scan.positions_m) == 3


def test_probe_and_mask_may_be_missing_and_a_single_probe_has_no_axis_of_modes(write, values):
    del values[f"{DETECTOR}/mask"]
    values[f"{SOURCE}/illumination"] = np.ones((N, N), np.complex64)
    path = write(values)
    with read_scan(path) as scan:
        assert scan.mask is None
        assert scan.probe.shape == (1, N, N)
    with h5py.File(path, "a") as file:
        del file[f"{SOURCE}/illumination"]
    with read_scan(path) as scan:
        assert scan.probe is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (f"{DETECTOR}/data", None, "wanted one of /entry_1/instrument_1/detector_1/data"),
        (
            f"{DETECTOR}/data",
            np.zeros((3, N, N + 1), np.uint16),
            r"data is uint16 \(3, 8, 9\), wanted square",
        ),
        ("entry_1/sample_1/geometry_1/translation", None, "wanted one of .*translation"),
        ("entry_1/sample_1/geometry_1/translation", SAMPLE_M[:2], r"shape \(2, 3\), 3 frames want \(3, 3\)"),
        (f"{SOURCE}/illumination", np.ones((N, 4), np.complex64), r"illumination has shape \(8, 4\)"),
        (f"{DETECTOR}/y_pixel_size", 55e-6, "7.5e-05 x 5.5e-05 m, wanted square ones"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(write, values, name, value, message):
    values[name] = value
    path = write({name: value for name, value in values.items() if value is not None})
    with pytest.raises(ScanFileError, match=message) as raised:
        read_scan(path)
    assert str(path) in str(raised.value)


def test_files_that_are_no_scans_are_refused(tmp_path):
    (tmp_path / "notes.cxi").write_text("not HDF5")
    with pytest.raises(ScanFileError, match=r"notes\.cxi: it is no HDF5 file"):
        read_scan(tmp_path / "notes.cxi")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["exchange/data"] = 1
    with pytest.raises(ScanFileError, match=r"wanted the group 'entry_1' of a CXI file, .* found exchange"):
        read_scan(tmp_path / "other.h5")


@needs_shared_data
def test_the_siemens_star_reads_with_its_nominal_geometry():
    with read_scan(SHARED_DATA / "siemens" / "siemens.cxi") as scan:
        assert scan.frames.shape == (516, 128, 128)
        assert scan.geometry.object_pixel_m == pytest.approx(28.178e-9, rel=1e-4)
        assert scan.frames[:].sum(axis=(1, 2)).mean() == pytest.approx(461_000, rel=1e-2)
        assert scan.probe.shape == (1, 128, 128)
        assert scan.mask.all()
