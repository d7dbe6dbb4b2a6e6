import h5py
import numpy as np
import pytest

from launch.results.product import write_product
from stream.files.cxi import read_scan


def test_our_own_reader_of_products_finds_the_positions_probe_and_pixel_of_the_result(tmp_path, result):
    write_product(tmp_path / "product.h5", result, {"scan": "star", "epochs": 40.0, "model": None})
    with h5py.File(tmp_path / "diffraction.h5", "w") as file:
        file["patterns"] = np.ones((len(result.frame_numbers), 16, 16), np.uint16)
        file["indexes"] = result.frame_numbers
    with read_scan(tmp_path / "product.h5") as scan:
        np.testing.assert_allclose(scan.positions_m, result.positions_m)
        np.testing.assert_array_equal(scan.probe, result.probe)
        assert scan.geometry.object_pixel_m == pytest.approx(result.geometry.object_pixel_m)
        assert scan.geometry.energy_ev == pytest.approx(8800)


def test_a_product_says_how_it_was_made(tmp_path, result):
    write_product(tmp_path / "made" / "product.h5", result, {"scan": "star", "epochs": 40.0, "model": None})
    with h5py.File(tmp_path / "made" / "product.h5") as file:
        assert file.attrs["name"] == "star"
        assert file.attrs["comments"] == "scan: star\nepochs: 40.0"
        assert file["loss_epochs"][...].tolist() == [1, 2, 4]
        assert file["loss_values"][...].tolist() == [0.3, 0.1, 0.05]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["product.h5"]
