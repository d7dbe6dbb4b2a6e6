"""What a configuration should say, from what was found: no reconstruction is run here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from launch.offline.orient import OrientedScan
from launch.offline.recorded import RecordedScan
from launch.offline.wanted_settings import fits_around, wanted_settings
from operators.geometry import Geometry
from operators.orientation.judge import Orientation
from operators.orientation.turn import Turn
from stream.documents.codec import append_records, as_record
from tests.helpers.launch.runs import make_config

GEOMETRY = Geometry(energy_ev=9000, detector_distance_m=1, detector_pixel_m=75e-6, n_pixels=64)
PLAYED = ("stage-y", "stage-x")


def found(turn=Turn(), *, centre=(100.2, 99.8), curvature=0.05):  # noqa: B008 -- frozen
    orientation = Orientation(
        turn=turn,
        confidence=1.0,
        confidences={turn.kind: 1.0},
        unexplained={},
        sign_from="probe",
        curvature=curvature,
        n_frames=100,
    )
    return OrientedScan(
        orientation=orientation,
        centre=centre,
        assumed_centre=(100, 100),
        frame_shape=(200, 200),
        frame_numbers=(0, 99),
        geometry=GEOMETRY,
    )


def recorded(config=None, source=""):
    nothing = np.zeros((0, 2))
    return RecordedScan(
        frames=np.zeros((0, 8, 8)),
        frame_numbers=np.zeros(0, np.int64),
        positions_m=nothing,
        geometry=None,
        probe=None,
        mask=None,
        name="a",
        config=config,
        source=source,
    )


def config_of(folder: Path, positions: dict, **sections):
    return make_config(folder, positions={"unit": "um", **positions}, **sections)


def test_a_file_gets_what_replay_plays_it_as():
    assert wanted_settings(found(), recorded(), None, PLAYED) == {}
    assert wanted_settings(found(Turn(True, (1, -1))), recorded(), None, PLAYED) == {
        ("positions", "signs"): [1, -1],
        ("positions", "y"): "stage-x",
        ("positions", "x"): "stage-y",
    }


def test_signs_of_a_run_are_those_it_was_recorded_with_turned(tmp_path):
    config = config_of(tmp_path, {"y": "a", "x": "b", "signs": [-1, 1]})
    wanted = wanted_settings(found(Turn(signs=(1, -1))), recorded(config), config, PLAYED)
    assert wanted == {("positions", "signs"): [-1, -1]}
    # with the axes exchanged, the sign that a had goes with it
    wanted = wanted_settings(found(Turn(exchanged=True)), recorded(config), config, PLAYED)
    assert wanted == {
        ("positions", "signs"): [1, -1],
        ("positions", "y"): "b",
        ("positions", "x"): "a",
    }


def test_a_configuration_that_has_been_corrected_since_is_left_as_it_is(tmp_path):
    then = config_of(tmp_path, {"y": "a", "x": "b"})
    now = config_of(tmp_path, {"y": "b", "x": "a", "signs": [1, -1]})
    assert wanted_settings(found(Turn(True, (1, -1))), recorded(then), now, PLAYED) == {}


def test_axes_that_the_hints_told_are_named_when_they_are_exchanged(tmp_path):
    start = {"uid": "run"}
    descriptor = {
        "uid": "d",
        "run_start": "run",
        "name": "primary",
        "data_keys": {"m-y": {}, "m-x": {}},
        "hints": {"m": {"fields": ["m-y", "m-x"]}},
    }
    append_records(tmp_path, [as_record("start", start), as_record("descriptor", descriptor)])
    config = config_of(tmp_path, {})
    scan = recorded(config, str(tmp_path))
    wanted = wanted_settings(found(Turn(exchanged=True)), scan, config, PLAYED)
    assert wanted == {("positions", "y"): "m-x", ("positions", "x"): "m-y"}
    with pytest.raises(ValueError, match="does not say what they are called"):
        wanted_settings(
            found(Turn(exchanged=True)), replace(scan, source=str(tmp_path / "gone")), config, PLAYED
        )


def test_positions_of_a_file_with_its_own_sense_are_not_turned_by_settings(tmp_path):
    (tmp_path / "a.cxi").touch()
    config = config_of(tmp_path, {"source": "file", "path": tmp_path / "a.cxi"})
    assert wanted_settings(found(), recorded(config), config, PLAYED) == {}
    with pytest.raises(ValueError, match="says itself"):
        wanted_settings(found(Turn(signs=(-1, 1))), recorded(config), config, PLAYED)


def test_another_centre_is_set_where_patterns_have_room_around_it(tmp_path):
    config = config_of(tmp_path, {})
    assert config.geometry.n_pixels == 64
    aside = found(centre=(106.4, 97.7))
    assert wanted_settings(aside, recorded(config), config, PLAYED) == {("geometry", "centre"): [106, 98]}
    narrow = replace(aside, frame_shape=(130, 200))
    assert fits_around(narrow, config) == 2 * (130 - 106)
    assert wanted_settings(narrow, recorded(config), config, PLAYED) == {}
    assert wanted_settings(found(), recorded(config), config, PLAYED) == {}


def test_the_disc_of_a_computed_probe_follows_the_defocus(tmp_path):
    def told(disc_px):
        probe = {"source": "zone_plate", "pupil_radius_px": 12, "disc_radius_px": disc_px, "photons": 1e5}
        return config_of(tmp_path, {}, probe=probe)

    n_pixels = told(10).geometry.n_pixels
    disc_px = 0.05 * n_pixels * 12 / np.pi
    assert wanted_settings(found(), recorded(), told(disc_px * 1.05), PLAYED) == {}
    wanted = wanted_settings(found(), recorded(), told(disc_px * 2), PLAYED)
    assert wanted == {("probe", "disc_radius_px"): pytest.approx(disc_px, abs=0.1)}
    assert wanted_settings(found(curvature=None), recorded(), told(disc_px * 2), PLAYED) == {}
