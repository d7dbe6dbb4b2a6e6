from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from launch.results.colours import tables
from launch.results.pictures import colour_map, draw_object, draw_probe, write_png
from operators.geometry import Bounds
from tests.helpers.launch.results import SHAPE


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


def test_a_position_in_micrometres_is_where_the_middle_of_the_probe_was(result):
    figure = Figure()
    draw_object(figure, replace(result, photons=np.ones(SHAPE, np.float32)))
    amplitude, phase = figure.axes[:2]
    bounds, pixel_um, half = result.bounds, 1e6 * result.geometry.object_pixel_m, result.geometry.n_pixels / 2
    for axes in (amplitude, phase):
        edges = np.array([bounds.left, bounds.right, bounds.bottom, bounds.top])
        assert axes.images[0].get_extent() == pytest.approx((edges - half) * pixel_um)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("x / µm", "y / µm")
    bars = [axes.child_axes[0].get_ylabel() for axes in (amplitude, phase)]
    assert bars == ["transmission", "rad"]


def test_a_phase_beyond_half_a_turn_is_drawn_cyclic_as_on_the_page(result):
    maps = []
    for step in (0.5, 2 * np.pi / 3):
        y, x = np.indices(SHAPE)
        object_ = np.exp(1j * step * ((x > 16).astype(int) + (x > 32) - (y > 30))).astype(np.complex64)
        figure = Figure()
        draw_object(figure, replace(result, object=object_, photons=np.ones(SHAPE, np.float32)))
        image = figure.axes[1].images[0]
        maps.append(image.get_cmap().name)
    assert maps == ["blue-yellow", "cyclic"]
    assert image.get_clim() == (-np.pi, np.pi)


def test_a_picture_has_the_colours_of_the_page():
    for name, table in tables().items():
        np.testing.assert_array_equal(colour_map(name)(np.arange(len(table)), bytes=True)[:, :3], table)


def test_every_mode_of_the_probe_shows_amplitude_and_phase(result):
    figure = Figure()
    draw_probe(figure, result)
    pictures = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in pictures] == [
        "mode 1: 96.2% of the power",
        "mode 2: 3.8% of the power",
        "phase",
        "phase",
    ]
    np.testing.assert_allclose(pictures[1].images[0].get_array(), np.abs(result.probe[1]), rtol=1e-6)


def test_a_scan_of_one_row_is_drawn_as_two_pictures_above_each_other(tmp_path, result):
    row = replace(
        result,
        object=result.object[:10],
        photons=np.ones((10, SHAPE[1]), np.float32),
        bounds=Bounds(0, 0, 10, SHAPE[1]),
    )
    figure = Figure()
    draw_object(figure, row)
    amplitude, phase = (axes.get_position() for axes in figure.axes[:2])
    assert amplitude.y0 > phase.y1
    write_png(tmp_path / "row.png", row)
    assert imread(tmp_path / "row.png").std() > 0.05
