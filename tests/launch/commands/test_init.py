"""The first configuration: out of a scan, a detector, documents of bluesky, and answers."""

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.init import Tellers, init
from launch.commands.simulate import write_scan
from launch.config.config import Config
from launch.config.file import load_config
from launch.init.questions import Question
from stream.detector.simulator import DetectorReplay, ReplayConfig
from stream.documents.publisher import DocumentPublisher
from stream.wire.sockets import Endpoint
from tests.helpers.launch.commands import free_address

GEOMETRY = [
    "geometry.energy_ev=9000",
    "geometry.detector_distance_m=1",
    "geometry.detector_pixel_m=75e-6",
    "geometry.n_pixels=64",
]


def descriptor(y: str, x: str) -> dict[str, Any]:
    return {
        "uid": "d",
        "run_start": "r",
        "name": "primary",
        "data_keys": {name: {"dtype": "number", "shape": [], "units": "µm"} for name in (y, x)},
        "hints": {name: {"fields": [name]} for name in (y, x)},
    }


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.cxi"
    write_scan(path, simulate_scan(Simulation(n_rows=3, n_columns=3)), "a scan")
    return path


def written(
    path: Path, *, ask: Callable[[Question], str] | None = None, **tellers
) -> tuple[Config, list[str]]:
    said: list[str] = []
    init(path, Tellers(**tellers), ask=ask, say=said.append, overwrite=False)
    return load_config(path), said


def test_a_scan_tells_all_that_a_run_needs_to_take_it_as_it_is_replayed(tmp_path, scan):
    config, _ = written(tmp_path / "my.yaml", scan=scan)
    demo = load_config("demo")
    for name in ("energy_ev", "detector_distance_m", "detector_pixel_m", "n_pixels"):
        assert getattr(config.geometry, name) == pytest.approx(getattr(demo.geometry, name))
    assert config.detector.address == load_config("beamline").detector.address
    assert (config.positions.unit, config.probe.source) == ("um", "data")
    assert "energy_ev: 9000.0  # scan.cxi" in (tmp_path / "my.yaml").read_text()


def test_the_bad_pixels_of_a_scan_become_a_mask_beside_the_configuration(tmp_path, scan):
    with h5py.File(scan, "r+") as file:
        mask = file["entry_1/instrument_1/detector_1/mask"]
        mask[3, 5] = 1
        bad = mask[()]
    config, _ = written(tmp_path / "my.yaml", scan=scan)
    assert config.geometry.mask == tmp_path / "my-mask.npy"
    assert np.array_equal(np.load(config.geometry.mask), bad == 0)


def test_of_large_frames_the_part_with_light_is_used_around_the_beam(tmp_path, scan):
    with h5py.File(scan, "r+") as file:
        detector = file["entry_1/instrument_1/detector_1"]
        frames = np.zeros((9, 300, 300), np.uint16)
        frames[:, 100:164, 90:154] = detector["data"][()]
        for name in ("data", "mask", "background"):
            del detector[name]
        del file["entry_1/instrument_1/source_1/illumination"]
        detector["data"] = frames
    config, _ = written(tmp_path / "my.yaml", scan=scan)
    assert config.geometry.centre == pytest.approx((132, 122), abs=1)
    assert config.geometry.n_pixels in (32, 64)


@pytest.mark.parametrize("dialect", ["dectris-v2", "dectris-v1", "json"])
def test_a_detector_tells_of_itself_when_it_begins_a_series(tmp_path, dialect):
    told = {"energy_ev": 12_000.0, "detector_distance_m": 2.5, "detector_pixel_m": 75e-6}
    frames, is_over = np.zeros((2, 514, 1030), np.uint16), threading.Event()
    with DetectorReplay(Endpoint(address="tcp://127.0.0.1:*", bind=True), format=dialect) as detector:
        playing = partial(detector.play, frames, ReplayConfig(**told), is_stopped=is_over.is_set)
        sender = threading.Thread(target=playing)
        sender.start()
        try:
            config, _ = written(
                tmp_path / "my.yaml", detector=detector.address, overrides=["positions.unit=um"]
            )
        finally:
            is_over.set()
            sender.join(10)
        assert (config.detector.address, config.detector.format) == (detector.address, dialect)
    assert {name: getattr(config.geometry, name) for name in told} == told
    assert config.geometry.n_pixels == 256


def test_a_detector_that_begins_nothing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no series began at tcp://127\.0\.0\.1:\d+ in 0 s: arm"):
        written(tmp_path / "my.yaml", detector=free_address(), timeout_s=0.0)
    assert not (tmp_path / "my.yaml").exists()


@pytest.mark.parametrize(
    "as_text",
    [
        json.dumps,
        lambda descriptor: json.dumps([["start", {"uid": "r"}], ["descriptor", descriptor]]),
        lambda descriptor: '["start", {"uid": "r"}]\n' + json.dumps(["descriptor", descriptor]),
        lambda descriptor: json.dumps({"name": "descriptor", "doc": descriptor}),
    ],
    ids=["a descriptor", "a list", "lines", "names and documents"],
)
def test_a_descriptor_tells_fields_and_unit(tmp_path, as_text):
    (tmp_path / "run.json").write_text(as_text(descriptor("stage-y", "stage-x")))
    config, _ = written(tmp_path / "my.yaml", documents=str(tmp_path / "run.json"), overrides=GEOMETRY)
    assert (config.positions.y, config.positions.x) == ("stage-y", "stage-x")
    assert config.positions.unit == "um"


def test_motors_that_are_not_called_y_and_x_have_to_be_named(tmp_path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(descriptor("piezo1", "piezo2")))
    with pytest.raises(ValueError, match=r"wanted one hinted field for y.*piezo1"):
        written(tmp_path / "my.yaml", documents=str(file), overrides=GEOMETRY)
    named = [*GEOMETRY, "positions.y=piezo1", "positions.x=piezo2"]
    config, _ = written(tmp_path / "my.yaml", documents=str(file), overrides=named)
    assert (config.positions.y, config.positions.x, config.positions.unit) == ("piezo1", "piezo2", "um")


def test_the_folder_of_a_fly_scan_is_one_that_may_be_read(tmp_path):
    resource = {"uid": "f", "run_start": "r", "uri": f"file://localhost{tmp_path}/fly%20scan/panda.h5"}
    documents = [["descriptor", descriptor("y", "x")], ["stream_resource", resource]]
    (tmp_path / "run.json").write_text(json.dumps(documents))
    config, _ = written(tmp_path / "my.yaml", documents=str(tmp_path / "run.json"), overrides=GEOMETRY)
    assert config.positions.folders == (tmp_path / "fly scan",)


def test_a_run_that_is_published_tells_as_well(tmp_path):
    address = free_address()
    publisher = DocumentPublisher(Endpoint(address=address))

    def publish() -> None:
        assert publisher.is_heard(20.0)
        publisher("start", {"uid": "r"})
        publisher("descriptor", descriptor("y", "x"))

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    config, _ = written(tmp_path / "my.yaml", documents=address, overrides=GEOMETRY, timeout_s=20.0)
    thread.join(20.0)
    publisher.close()
    assert (config.positions.address, config.positions.unit, config.positions.y) == (address, "um", "y")


def test_what_nobody_told_is_asked_for_with_units_as_people_write_them(tmp_path):
    answers = iter(["nine", "9 keV", "1.92m", "75 µm", "128", "inch", "nm"])
    config, said = written(tmp_path / "my.yaml", ask=lambda question: next(answers))
    geometry = config.geometry
    assert (geometry.energy_ev, geometry.detector_distance_m, geometry.detector_pixel_m) == (9e3, 1.92, 75e-6)
    assert (geometry.n_pixels, config.positions.unit) == (128, "nm")
    assert "wanted a number in eV, keV, got 'nine'" in said
    assert "wanted one of m, mm, um, nm, got 'inch'" in said


def test_answers_that_cannot_be_are_asked_for_again(tmp_path):
    answers = iter(["9", "1 m", "75 um", "64", "um", "9 keV", "1 m", "75 um", "64"])
    config, said = written(tmp_path / "my.yaml", ask=lambda question: next(answers))
    assert config.geometry.energy_ev == 9e3
    assert any("did you mean 9 keV" in line for line in said)


def test_where_nobody_answers_everything_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)nobody told.*--set geometry\.energy_ev=.*positions\.unit"):
        written(tmp_path / "my.yaml")
    assert not list(tmp_path.iterdir())


def test_two_who_contradict_each_other_are_named_and_the_user_is_right(tmp_path, scan):
    config, said = written(tmp_path / "my.yaml", scan=scan, overrides=["geometry.energy_ev=12000"])
    assert config.geometry.energy_ev == 12_000
    assert any("12000 by as you said" in line or "energy_ev is 12000" in line for line in said)


def test_a_file_that_exists_stays(tmp_path, scan):
    path = tmp_path / "my.yaml"
    path.write_text("mine: 1\n")
    with pytest.raises(FileExistsError, match="--overwrite"):
        written(path, scan=scan)
    assert path.read_text() == "mine: 1\n"


def test_a_setting_that_is_none_makes_no_file(tmp_path, scan):
    with pytest.raises(ValueError, match=r"positions\.unit: wanted .*got 'inch'"):
        written(tmp_path / "my.yaml", scan=scan, overrides=["positions.unit=inch"])
    assert not (tmp_path / "my.yaml").exists()
