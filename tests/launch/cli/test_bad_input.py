"""Whatever is wrong with what a command is given: an exit status and one paragraph that names it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.training.recipe import DEMO_RECIPE
from stream.wire.keys import create_keys
from tests.helpers.launch.wrong_values import (
    ADDRESSES,
    Parameter,
    Places,
    is_choice,
    parameters,
    said_in_refusal,
    wrong_numbers,
)
from tests.helpers.stream.scans import make_scan
from tests.launch.conftest import Call

CONFIG = """\
geometry: {energy_ev: 9000, detector_distance_m: 1.0, detector_pixel_m: 75.0e-6, n_pixels: 64}
detector: {address: "tcp://127.0.0.1:9"}
positions: {unit: um}
live: {address: "tcp://127.0.0.1:*"}
viewer: {enabled: false}
"""
# What options and arguments of text or a path want; one that is in none of these fails the test.
READS = {"config", "recipe", "scan", "from_scan", "key", "peers", "probe", "mask", "data", "write"}
LISTS = {"columns", "signs", "centre"}
WRITES = {"output", "json", "csv", "product"}
FOLDERS = {"save", "folder", "store", "cache"}
ADDRESSED = {"address", "of", "detector"}
WORDS = {
    "documents": ["no-such.json", "tcp://127.0.0.1", "tcp://"],
    "on": ["banana", "ray://", "ray://host", "tcp://host:1"],
    "sample": ["banana"],
    "device": ["banana", "cuda"],
    "action": ["banana"],
    "pv": ["T:IMAGE"],
    "values": ["banana"],
    "name": [".", "..", "../../evil", "a/b"],
    "overrides": [
        "=",
        "banana",
        "positions.signs=[1]",
        "geometry.centre=[514]",
        "a.b=1",
        "detector=3",
        "x={",
    ],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return Places(tmp_path_factory.mktemp("wrong"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """For each command the least that it takes: what is added makes it wrong."""
    folder = tmp_path_factory.mktemp("good")
    scan, config = folder / "scan.cxi", folder / "config.yaml"
    write_scan(scan, simulate_scan(Simulation(n_rows=3, n_columns=3)), "a good one")
    config.write_text(CONFIG)
    secret = create_keys(folder, "me")
    keys = ["--key", str(secret), "--peers", str(secret.with_suffix(".key"))]
    return {
        "demo": ["--frames", "4", "--no-store", "--save", str(folder / "demo")],
        "run": [str(config)],
        "check": [str(config), "--timeout", "0.01"],
        "replay": [str(scan), "--timeout", "0.01", "--address", f"ipc://{folder}/detector", *keys],
        "ledger": [str(make_scan(folder / "scans").folder)],
        "reconstruct": [str(scan), "--epochs", "0.1", "--no-frc"],
        "orient": [str(scan)],
        "init": [str(folder / "first.yaml"), "--no-ask", "--scan", str(scan), "--timeout", "0.01"],
        "simulate": [str(folder / "new.cxi"), "--rows", "2", "--columns", "2"],
        "train": [str(DEMO_RECIPE), "--output", str(folder / "weights")],
        "watch": ["ipc://nobody", *keys],
        "steer": ["ipc://nobody", "region", "0", "1", "0", "1", *keys],
        "replay-decisions": [str(folder)],
        "keys": [str(folder), "me"],
        "stage": ["inference", "--of", "ipc://nobody", "--patience", "0.01", *keys],
    }


def wrong_calls(parameter: Parameter, good: list[str], places: Places) -> Iterator[tuple[list[str], str]]:
    """Command lines with one thing wrong, and what has to be named."""
    for value in wrong_values(parameter, places):
        if parameter.option and parameter.kind is bool:
            yield [*good, f"{parameter.option}={value}"], parameter.option
        elif parameter.option:
            yield [*good, parameter.option, value], value or f"{parameter.option} is empty"
        else:
            arguments = [one for one in parameters() if one.command == parameter.command and not one.option]
            index = [one.name for one in arguments].index(parameter.name)
            yield [*good[:index], value, *good[index + 1 :]], value or "is empty"


def wrong_values(parameter: Parameter, places: Places) -> list[str]:
    kind, name = parameter.kind, parameter.name
    if kind is bool:
        return ["3"]
    if kind in (int, float):
        return wrong_numbers(parameter)
    if is_choice(kind):
        return ["banana", ""]
    if name in FOLDERS or (parameter.command, name) == ("train", "output"):
        return ["", str(places.garbage), str(places.below_a_file)]
    if name in READS or (name == "positions" and parameter.command in ("reconstruct", "orient")):
        return places.to_read()
    if name in LISTS:
        return ["", ",", "banana,", "1,2,3", "nan,inf"]
    if name in WRITES:
        return places.to_write()
    if name in ADDRESSED or (parameter.command, name) == ("replay", "positions"):
        return list(ADDRESSES)
    return ["", *WORDS[name]]


@pytest.mark.parametrize("command", sorted({parameter.command for parameter in parameters()}))
def test_each_option_of_a_command_refuses_wrong_values(
    call: Call,
    good: dict[str, list[str]],
    places: Places,
    command: str,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run_folder)
    failed = []
    for parameter in parameters():
        if parameter.command != command:
            continue
        for arguments, named in wrong_calls(parameter, good[command], places):
            said = said_in_refusal(call, [command, *arguments])
            names = {named, Path(named).name, parameter.option} - {""}
            if not any(name in said for name in names):
                failed.append(f"{command} {arguments}: {named or parameter.option} is not named in {said!r}")
    assert not failed, "\n".join(failed)
