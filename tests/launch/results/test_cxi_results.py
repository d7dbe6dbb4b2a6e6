from dataclasses import replace

import h5py
import numpy as np
import pytest
from matplotlib.image import imread

from launch.results.cxi import Reconstruction, read_result, write_cxi, write_png
from operators.geometry import Bounds, Geometry
from operators.optics.probe import zone_plate_probe
from stream.files.probe import read_probe

N = 16
SHAPE = (60, 48)


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    y, x = np.indices(SHAPE)
    photons = np.exp(-(((y - 30) / 15) ** 2) - ((x - 24) / 12) ** 2).astype(np.float32)
    return Reconstruction(
        object=(np.exp(0.5j * (x > 24)) * (0.6 + 0.4 * (y > 30))).astype(np.complex64),
        bounds=Bounds(-7, 12, SHAPE[0] - 7, SHAPE[1] + 12),
        probe=zone_plate_probe(N, 3.0, 4.0)[None],
        photons=photons,
        positions_m=rng.normal(0, 1e-6, (9, 2)),
        frame_numbers=np.array([0, 1, 2, 3, 5, 6, 7, 8, 11]),
        geometry=Geometry(energy_ev=8800, detector_distance_m=2.0, detector_pixel_m=75e-6, n_pixels=N),
        error_history=np.array([0.3, 0.1, 0.05]),
        maps={"sigma": photons},
    )


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


def test_the_probe_of_a_result_serves_the_next_run(tmp_path, result):
    write_cxi(tmp_path / "star.cxi", result, {})
    np.testing.assert_array_equal(read_probe(tmp_path / "star.cxi"), result.probe)


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


def test_the_picture_shows_the_lit_object_without_ramp_and_global_phase(tmp_path, result):
    y, x = np.indices(SHAPE)
    ramp = np.exp(1j * (0.05 * y - 0.03 * x + 2)).astype(np.complex64)
    pictures = []
    for name, object_ in (("plain", result.object), ("ramp", result.object * ramp)):
        write_png(tmp_path / f"{name}.png", replace(result, object=object_))
        pictures.append(imread(tmp_path / f"{name}.png")[..., :3])
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.02
    assert pictures[0].std() > 0.1, "a picture with nothing in it"
