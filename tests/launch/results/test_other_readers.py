"""Our results as other programs read them: `tests/requirements-readers.txt` installs those."""

import h5py
import numpy as np
import pytest

from launch.results.cxi import write_cxi
from launch.results.product import write_product
from tests.helpers.launch.results import N

HOW = "pip install --no-deps -r tests/requirements-readers.txt"
PROVENANCE = {"scan": "star", "epochs": 4.0}


@pytest.fixture
def products(tmp_path, result):
    """The result as ptychodus reads it from our CXI and from our product."""
    name = "ptychodus.plugins."
    cxi = pytest.importorskip(name + "cxi_file", reason=HOW).CXIProductFileIO()
    hdf5 = pytest.importorskip(name + "h5_product_file", reason=HOW).H5ProductFileIO()
    write_cxi(tmp_path / "star.cxi", result, PROVENANCE)
    write_product(tmp_path / "star.h5", result, PROVENANCE)
    return {"cxi": cxi.read(tmp_path / "star.cxi"), "h5": hdf5.read(tmp_path / "star.h5")}


@pytest.mark.parametrize("kind", ["cxi", "h5"])
def test_ptychodus_opens_a_result_as_a_product(products, result, kind):
    product, pixel_m = products[kind], result.geometry.object_pixel_m
    np.testing.assert_array_equal(product.object_.get_array(), result.object[None])
    np.testing.assert_array_equal(product.probes.get_array().reshape(result.probe.shape), result.probe)
    for array in (product.object_, product.probes):
        pixel = array.get_pixel_geometry()
        assert (pixel.width_m, pixel.height_m) == pytest.approx((pixel_m, pixel_m))
    metadata = product.metadata
    assert metadata.name == "star"
    assert metadata.photon_energy_eV == pytest.approx(result.geometry.energy_ev)
    assert metadata.detector_distance_m == result.geometry.detector_distance_m
    assert metadata.probe_photon_count == pytest.approx((np.abs(result.probe) ** 2).sum())
    assert product.probe_positions.get_indexes().tolist() == result.frame_numbers.tolist()
    assert [(loss.epoch, loss.value) for loss in product.losses] == [(1, 0.3), (2, 0.1), (4, 0.05)]


def test_ptychodus_finds_under_each_position_of_a_product_the_object_that_we_have_there(products, result):
    from ptychodus.api.interpolate import BarycentricArrayInterpolator

    product = products["h5"]
    geometry = product.object_.get_geometry()
    interpolator = BarycentricArrayInterpolator(product.object_.get_layer(0))
    corners = np.rint(result.geometry.to_pixels(result.positions_m)).astype(int) - result.bounds.origin
    for position, (top, left) in zip(product.probe_positions, corners, strict=True):
        place = geometry.map_coordinates_probe_to_object(position)
        found = interpolator.get_patch(place.x_px, place.y_px, N, N)
        np.testing.assert_allclose(found, result.object[top : top + N, left : left + N], atol=1e-5)


def test_ptychodus_takes_the_motion_of_the_sample_in_cxi_for_that_of_the_probe(products, result):
    """CXI has the first; a product has the second. Both lie on the object, mirrored in x and in y."""
    cxi, hdf5 = products["cxi"], products["h5"]
    for axis, metres in (("y", result.positions_m[:, 0]), ("x", result.positions_m[:, 1])):
        np.testing.assert_allclose(getattr(hdf5.probe_positions, f"get_coordinates_{axis}_m")(), metres)
        np.testing.assert_allclose(getattr(cxi.probe_positions, f"get_coordinates_{axis}_m")(), -metres)
        centres = [getattr(each.object_.get_center(), f"{axis}_m") for each in (cxi, hdf5)]
        assert centres[0] == pytest.approx(-centres[1])


def test_cdtools_finds_geometry_and_positions_in_a_result(tmp_path, result):
    data = pytest.importorskip("cdtools.tools.data", reason=HOW)
    write_cxi(tmp_path / "star.cxi", result, PROVENANCE)
    with h5py.File(tmp_path / "star.cxi") as file:
        y, x = result.positions_m.T
        np.testing.assert_allclose(
            data.get_ptycho_translations(file), np.stack([x, y, 0 * x], axis=1), rtol=1e-6, atol=1e-15
        )
        assert data.get_wavelength(file) == pytest.approx(result.geometry.wavelength_m)
        distance_m, basis, _ = data.get_detector_geometry(file)
        assert distance_m == pytest.approx(result.geometry.detector_distance_m)
        pitch_m = result.geometry.detector_pixel_m
        np.testing.assert_allclose(basis, [[0, -pitch_m], [-pitch_m, 0], [0, 0]])
        assert data.get_entry_info(file)["title"] == "star"


def test_cdtools_reads_a_result_as_nested_arrays(tmp_path, result):
    data = pytest.importorskip("cdtools.tools.data", reason=HOW)
    write_cxi(tmp_path / "star.cxi", result, PROVENANCE)
    with h5py.File(tmp_path / "star.cxi") as file:
        entry = data.h5_to_nested_dict(file["entry_1"])
    np.testing.assert_array_equal(entry["object"]["data"], result.object)
    np.testing.assert_array_equal(entry["probe"]["data"], result.probe)
    assert entry["object"]["x_pixel_size"] == pytest.approx(result.geometry.object_pixel_m)
