from dataclasses import replace

import h5py
import numpy as np
import pytest

from launch.results.cxi import read_halves, read_result, write_cxi
from operators.metrics.errors import fourier_ring_correlation
from operators.mosaic.scan_maps import MAPS
from stream.files.cxi import JOULES_PER_EV
from stream.files.probe import read_probe


def test_a_result_reads_back_as_it_was_written(tmp_path, result):
    write_cxi(tmp_path / "made" / "star.cxi", result, {})
    again = read_result(tmp_path / "made" / "star.cxi")
    for name in ("object", "probe", "photons", "frame_numbers", "error_history"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    np.testing.assert_allclose(again.positions_m, result.positions_m, rtol=1e-12)
    np.testing.assert_array_equal(again.maps["sigma"], result.maps["sigma"])
    assert again.bounds == result.bounds
    assert again.geometry.energy_ev == pytest.approx(8800)
    assert again.geometry.object_pixel_m == pytest.approx(result.geometry.object_pixel_m)


def test_how_the_probe_moved_during_exposures_reads_back_and_is_motion_of_the_sample_in_the_file(
    tmp_path, result
):
    travel_m = np.random.default_rng(0).normal(0, 1e-8, result.positions_m.shape)
    result = replace(result, travel_m=travel_m, spread_m=np.abs(travel_m) / 3)
    write_cxi(tmp_path / "star.cxi", result, {})
    again = read_result(tmp_path / "star.cxi")
    np.testing.assert_array_equal(again.travel_m, travel_m)
    np.testing.assert_array_equal(again.spread_m, result.spread_m)
    with h5py.File(tmp_path / "star.cxi") as file:
        np.testing.assert_array_equal(file["entry_1/sample_1/geometry_1/travel"][:, 0], -travel_m[:, 1])


def test_what_patterns_show_alone_lies_in_cells_that_begin_where_the_object_does(tmp_path, result):
    photons = np.linspace(1e3, 2e3, len(result.positions_m))
    moments = np.column_stack([photons, np.zeros((len(photons), 2)), np.full(len(photons), 5.0)])
    result = replace(result, moments=moments.astype(np.float32))
    write_cxi(tmp_path / "star.cxi", result, {})
    np.testing.assert_array_equal(read_result(tmp_path / "star.cxi").moments, result.moments)
    with h5py.File(tmp_path / "star.cxi") as file:
        group = file["entry_1/scan_maps"]
        intensity, cell_m = group["intensity"][...], group["x_pixel_size"][()]
        assert {*group} == {*MAPS, "moments", "x_pixel_size", "y_pixel_size"}
        assert np.nanmin(intensity) >= 1e3 and np.nanmax(intensity) <= 2e3 + 1e-3
        cells = np.array(intensity.shape) * cell_m / result.geometry.object_pixel_m
        assert (cells >= result.object.shape).all()


def first_version_of(path, result):
    """A result as the first version wrote it: no images, no halves, the errors under another name."""
    geometry, (y, x), bounds = result.geometry, result.positions_m.T, result.bounds
    with h5py.File(path, "w") as file:
        file["cxi_version"], file["number_of_entries"] = 160, 1
        entry = file.create_group("entry_1")
        source, detector = (entry.create_group(f"instrument_1/{name}_1") for name in ("source", "detector"))
        source["energy"], source["wavelength"] = geometry.energy_ev * JOULES_PER_EV, geometry.wavelength_m
        source["illumination"] = result.probe
        detector["distance"] = geometry.detector_distance_m
        detector["x_pixel_size"] = detector["y_pixel_size"] = geometry.detector_pixel_m
        entry["sample_1/geometry_1/translation"] = np.stack([-x, -y, 0 * x], axis=1)
        entry["sample_1/geometry_1/frame_number"] = result.frame_numbers
        entry["result_1/data"], entry["result_2/data"] = result.object, result.probe
        entry["result_1/bounds"] = [bounds.top, bounds.left, bounds.bottom, bounds.right]
        entry["result_1/photons"] = result.photons
        entry["result_1/maps/sigma"] = result.maps["sigma"]
        entry["process_1/program"], entry["process_1/amplitude_error"] = "ptychostream", result.error_history


def test_a_result_of_the_first_version_is_read_by_all_readers(tmp_path, result):
    first_version_of(tmp_path / "first.cxi", result)
    write_cxi(tmp_path / "today.cxi", result, {})
    first, today = (read_result(tmp_path / name) for name in ("first.cxi", "today.cxi"))
    for name in ("object", "probe", "photons", "frame_numbers", "error_history", "positions_m"):
        np.testing.assert_array_equal(getattr(first, name), getattr(today, name))
    assert (first.bounds, first.geometry, list(first.maps)) == (today.bounds, today.geometry, ["sigma"])
    assert read_halves(tmp_path / "first.cxi") is None
    np.testing.assert_array_equal(read_probe(tmp_path / "first.cxi"), result.probe)


def test_the_probe_of_a_result_serves_the_next_run(tmp_path, result):
    write_cxi(tmp_path / "star.cxi", result, {})
    np.testing.assert_array_equal(read_probe(tmp_path / "star.cxi"), result.probe)


def test_the_agreement_of_halves_reads_back(tmp_path, result):
    halves = fourier_ring_correlation(result.object, result.object * np.exp(0.1j))
    write_cxi(tmp_path / "star.cxi", replace(result, halves=halves), {})
    again = read_result(tmp_path / "star.cxi").halves
    for name in ("frequency", "correlation", "n_pixels", "half_bit"):
        np.testing.assert_array_equal(getattr(again, name), getattr(halves, name))


def test_other_programs_find_what_they_look_for(tmp_path, result):
    write_cxi(tmp_path / "star.cxi", result, {"model": "abc", "epochs": 40.0, "store": None})
    with h5py.File(tmp_path / "star.cxi") as file:
        entry = file["entry_1"]
        np.testing.assert_array_equal(entry["object/data"], result.object)
        np.testing.assert_array_equal(entry["probe/data"], result.probe)
        assert entry["result_1/x_pixel_size"][()] == pytest.approx(result.geometry.object_pixel_m)
        translation = entry["sample_1/geometry_1/translation"][...]
        np.testing.assert_allclose(-translation[:, 1], result.positions_m[:, 0], err_msg="sample motion")
        assert entry["process_1/model"][()] == b"abc"
        assert entry["process_1/epochs"][()] == 40
        assert "store" not in entry["process_1"]


def test_a_file_appears_only_when_it_is_complete(tmp_path, result):
    write_cxi(tmp_path / "star.cxi", result, {})
    before = (tmp_path / "star.cxi").read_bytes()
    with pytest.raises(TypeError):
        write_cxi(tmp_path / "star.cxi", replace(result, maps={"sigma": object()}), {})
    assert (tmp_path / "star.cxi").read_bytes() == before


def test_a_file_without_a_result_is_named(tmp_path):
    with h5py.File(tmp_path / "raw.cxi", "w") as file:
        file.create_group("entry_1")
    with pytest.raises(ValueError, match=r"raw\.cxi: wanted a result written by ptychostream"):
        read_result(tmp_path / "raw.cxi")
