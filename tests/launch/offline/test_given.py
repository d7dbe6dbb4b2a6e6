from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from launch.beamline.simulation import SimulatedScan, Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.offline.given import Given, open_given
from launch.offline.reconstruct import reconstruct
from launch.offline.task import ReconstructOptions
from stream.files.plain import Layout
from tests.helpers.launch.foreign_files import write_product


@pytest.fixture(scope="module")
def simulated() -> SimulatedScan:
    return simulate_scan(Simulation(n_rows=3, n_columns=4))


@pytest.fixture
def cxi(tmp_path: Path, simulated: SimulatedScan) -> Path:
    path = tmp_path / "scan.cxi"
    write_scan(path, simulated, "test")
    return path


@pytest.fixture
def bare(tmp_path: Path, simulated: SimulatedScan) -> tuple[Path, Given]:
    """Frames alone, and what is to be said of them."""
    np.save(tmp_path / "frames.npy", simulated.frames)
    np.save(tmp_path / "positions.npy", simulated.positions_m * 1e6)
    np.save(tmp_path / "probe.npy", simulated.nominal_probe)
    geometry = simulated.geometry
    return tmp_path / "frames.npy", Given(
        layout=Layout(positions=str(tmp_path / "positions.npy"), unit="um"),
        energy_ev=geometry.energy_ev,
        detector_distance_m=geometry.detector_distance_m,
        detector_pixel_m=geometry.detector_pixel_m,
        probe=tmp_path / "probe.npy",
    )


def test_frames_alone_and_what_is_said_of_them_are_a_scan_like_that_of_a_file(cxi, bare):
    path, given = bare
    options = ReconstructOptions(epochs=1)
    with open_given(str(cxi), None, Given()) as scan, open_given(str(path), None, given) as other:
        assert scan.notes == () and len(other.notes) == 4
        assert scan.geometry.object_pixel_m == pytest.approx(other.geometry.object_pixel_m)
        found, again = reconstruct(scan, options), reconstruct(other, options)
    np.testing.assert_allclose(found.object, again.object, atol=1e-3)


def test_what_is_given_instead_of_the_files_own_is_said(cxi, tmp_path, simulated):
    np.save(tmp_path / "positions.npy", simulated.positions_m * 1e3)
    mask = np.ones(simulated.frames.shape[1:], bool)
    mask[:40] = False
    np.save(tmp_path / "mask.npy", mask)
    given = Given(
        energy_ev=8000.0,
        mask=tmp_path / "mask.npy",
        layout=Layout(positions=str(tmp_path / "positions.npy"), unit="mm", signs=(-1, 1)),
    )
    with open_given(str(cxi), None, given) as scan:
        positions, energy, masked = scan.notes
        assert positions == f"positions of {tmp_path / 'positions.npy'} instead of those of the scan"
        assert energy == "energy 8 keV instead of 9 keV, as given"
        assert "2560 of 4096 pixels are not valid: is it the other way round?" in masked
        assert scan.geometry.energy_ev == 8000.0
        np.testing.assert_allclose(scan.positions_m, simulated.positions_m * [-1, 1], atol=1e-12)
        np.testing.assert_array_equal(scan.mask, mask)


def test_the_beam_is_cut_out_of_large_frames_and_binned(bare, tmp_path, simulated):
    path, given = bare
    large = np.zeros((len(simulated.frames), 150, 200), np.uint16)
    large[:, 11:139, 52:180] = simulated.frames.repeat(2, 1).repeat(2, 2)
    np.save(path, large)
    given = replace(given, crop=128, centre=(75, 116), binning=2, detector_pixel_m=37.5e-6)
    with open_given(str(path), None, given) as scan:
        assert scan.geometry.object_pixel_m == pytest.approx(simulated.geometry.object_pixel_m)
        patterns = scan.preprocess()(scan.frames[:2])
    np.testing.assert_array_equal(np.fft.fftshift(patterns, (1, 2)), 4 * simulated.frames[:2])


def test_a_probe_is_taken_from_a_product_without_its_patterns(tmp_path, simulated, cxi):
    for name in ("product.h5", "product.npz"):
        product = write_product(tmp_path, simulated, name=name)
        for patterns in tmp_path.glob("diffraction.*"):
            patterns.unlink()
        with open_given(str(cxi), None, Given(probe=product)) as scan:
            np.testing.assert_array_equal(scan.probe, simulated.probe)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"detector_distance_m": None}, r"give --distance \(m\)"),
        ({"energy_ev": 9.0}, "did you mean 9 keV"),
        ({"energy_ev": -1.0}, "--energy: wanted more than 0 eV"),
        ({"crop": 65}, "choose fewer pixels or another centre"),
        ({"crop": 32}, "the probe has 64 x 64 pixels, patterns have 32"),
        ({"mask": Path("frames.npy")}, r"frames\.npy: wanted a mask \(row, col\)"),
        ({"probe": Path("positions.npy")}, r"positions\.npy: wanted a complex probe"),
    ],
)
def test_what_does_not_fit_is_named(bare, change, words, monkeypatch):
    path, given = bare
    monkeypatch.chdir(path.parent)
    with (
        pytest.raises(ValueError, match=words),
        open_given(str(path), None, replace(given, **change)) as scan,
    ):
        reconstruct(scan, ReconstructOptions(epochs=1))


def test_frames_that_are_not_square_are_to_be_cut(bare):
    path, given = bare
    np.save(path, np.ones((12, 40, 50), np.uint16))
    with pytest.raises(ValueError, match=r"frames are 40 x 50, .* --crop N, at most 40"):
        open_given(str(path), None, given).__enter__()


@pytest.mark.parametrize("name", ["distance", "x_pixel_size"])
def test_only_what_a_file_lacks_is_asked_for(cxi, name, simulated):
    with h5py.File(cxi, "a") as file:
        del file[f"entry_1/instrument_1/detector_1/{name}"]
    option = {"distance": r"--distance \(m\)", "x_pixel_size": r"--pixel \(m\)"}[name]
    with (
        pytest.raises(ValueError, match=f"give {option}$"),
        open_given(str(cxi), None, Given()) as scan,
    ):
        reconstruct(scan, ReconstructOptions(epochs=1))
    geometry = simulated.geometry
    said = Given(detector_distance_m=geometry.detector_distance_m, detector_pixel_m=geometry.detector_pixel_m)
    with open_given(str(cxi), None, said) as scan:
        assert scan.geometry == geometry
