"""Whatever is wrong with the file of a scan: a refusal is one paragraph that names it."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from tests.helpers.launch.wrong_values import said_in_refusal
from tests.launch.conftest import Call

FRAMES = "entry_1/instrument_1/detector_1/data"
POSITIONS = "entry_1/sample_1/geometry_1/translation"
NUMBERS = ("entry_1/instrument_1/source_1/energy", "entry_1/instrument_1/detector_1/distance",
           "entry_1/instrument_1/detector_1/x_pixel_size")  # fmt: skip
PROBE = "entry_1/instrument_1/source_1/illumination"
INSTEAD = (NUMBERS[0],)  # by the wavelength


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "good.cxi"
    write_scan(path, simulate_scan(Simulation(n_rows=3, n_columns=3)), "a good one")
    return path


def wrong_arrays(name: str, values: Any) -> list[Any]:
    """What cannot stand where `values` do."""
    if values.ndim == 0:
        return [np.nan, -1.0, 1e30, 1e-30, "banana", np.zeros(0)]
    wrong = [
        "banana",
        3.0,
        values[:1],
        values[:0],
        values[0],
        np.zeros((2, 2, 2, 2, 2)),
        np.full_like(values, 0),
    ]
    if name == PROBE:
        return [*wrong[:2], values[:0], np.full_like(values, np.nan), values[:, :3, :3]]
    if name == POSITIONS:
        return [*wrong, np.full_like(values, np.nan), values * 1e6, values[:, :1], values[:-1]]
    return [*wrong, -values.astype(np.int32) - 1, np.full(values.shape, np.nan, np.float32), values[:, :3]]


@pytest.mark.parametrize("name", [FRAMES, POSITIONS, *NUMBERS, PROBE])
def test_an_array_that_cannot_be_is_said_with_its_file(
    call: Call, good: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(run_folder)
    with h5py.File(good) as file:
        values = file[name][()]
    for index, wrong in enumerate([None, *wrong_arrays(name, values)]):
        path = run_folder / f"bad-{index}.cxi"
        shutil.copy(good, path)
        with h5py.File(path, "a") as file:
            del file[name]
            if wrong is not None:
                file[name] = wrong
        command = ["reconstruct", str(path), "--epochs", "0.1", "--no-frc"]
        if wrong is None and name in INSTEAD:
            assert call(*command)[0] == 0, name
        else:
            assert path.stem in said_in_refusal(call, command), f"{name} is {wrong}"


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@given(data=st.data())
@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_a_file_that_is_cut_or_overwritten_is_said(
    call: Call, good: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    monkeypatch.chdir(run_folder)
    content = bytearray(good.read_bytes())
    if data.draw(st.booleans(), "cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1), "length")]
    else:  # its beginning, where HDF5 says what lies where
        for _ in range(data.draw(st.integers(1, 8), "bytes")):
            content[data.draw(st.integers(0, 95), "at")] ^= data.draw(st.integers(1, 255), "bits")
    path = run_folder / "bad.cxi"
    path.write_bytes(content)
    command = ["reconstruct", str(path), "--epochs", "0.1", "--no-frc", "--overwrite"]
    status, out, err = call(*command)
    assert status == 0 or path.stem in said_in_refusal(lambda *_: (status, out, err), command)
