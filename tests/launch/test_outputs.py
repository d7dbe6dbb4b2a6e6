"""No command loses a file: the place that says so, and every option of every command that names an output."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
import yaml

from docs._generate.commands import parameters
from launch import cli
from launch.beamline.simulation import Simulation, simulate_scan
from launch.cli.app import app
from launch.commands.simulate import write_scan
from launch.outputs import check_outputs
from tests.helpers.launch.tiny_recipe import TINY_RECIPE
from tests.helpers.stream.scans import make_scan

RUN = """
geometry: {energy_ev: 8800, detector_distance_m: 1.92, detector_pixel_m: 75.0e-6, n_pixels: 64}
detector: {address: "ipc:///nobody"}
positions: {unit: m, source: file, path: positions.npy}
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.cxi"
    path.write_bytes(b"measured")
    return path


def test_an_existing_file_is_replaced_only_on_request(old, tmp_path):
    outputs = {"--output": old, "--json": tmp_path / "new.json", "nothing": None}
    with pytest.raises(FileExistsError, match=r"old\.cxi: there already; --overwrite"):
        check_outputs(outputs, overwrite=False)
    check_outputs(outputs, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["old.cxi", "symlink.cxi", "hardlink.cxi", "../{}/old.cxi"])
def test_an_input_is_never_an_output_by_whatever_name(old, tmp_path, name, overwrite):
    (tmp_path / "symlink.cxi").symlink_to(old)
    (tmp_path / "hardlink.cxi").hardlink_to(old)
    with pytest.raises(ValueError, match=r"--output: .* would replace what is read"):
        check_outputs(
            {"--output": tmp_path / name.format(tmp_path.name)}, inputs=[None, old], overwrite=overwrite
        )


def test_files_of_a_folder_that_is_read_are_inputs_and_new_ones_beside_them_are_not(tmp_path):
    (tmp_path / "columns").mkdir()
    (tmp_path / "columns" / "000000.bin").write_bytes(b"frames")
    with pytest.raises(ValueError, match="would replace what is read"):
        check_outputs({"--output": tmp_path / "columns/000000.bin"}, inputs=[tmp_path], overwrite=True)
    check_outputs({"--output": tmp_path / "result.cxi"}, inputs=[tmp_path], overwrite=False)


@pytest.mark.parametrize("name", ["new.png", "symlink.png", "folder/../new.png"])
def test_two_outputs_are_two_files_also_where_neither_is_there_yet(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "symlink.png").symlink_to("new.png")
    with pytest.raises(ValueError, match=r"--output and the picture would both be written to"):
        check_outputs({"--output": tmp_path / "new.png", "the picture": tmp_path / name}, overwrite=True)


def test_what_cannot_be_written_is_known_before_the_work(old, tmp_path, monkeypatch):
    with pytest.raises(NotADirectoryError, match=r"--json: .*old\.cxi is no folder"):
        check_outputs({"--json": old / "a.json"}, overwrite=False)
    with pytest.raises(IsADirectoryError, match="wanted the name of a file"):
        check_outputs({"--json": tmp_path}, overwrite=False)
    with pytest.raises(OSError, match="a name of more than 255 bytes"):
        check_outputs({"--json": tmp_path / ("ü" * 128)}, overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match="no permission to write in"):
        check_outputs({"--json": tmp_path / "new" / "a.json"}, overwrite=False)
    with pytest.raises(PermissionError, match="is write-protected"):
        check_outputs({"--json": old}, overwrite=True)


def test_what_is_no_file_is_nothing_to_lose():
    check_outputs({"--json": Path("/dev/null")}, overwrite=False)


# Of each option that names what a command writes: a call, the file at stake, and where the work begins.
WRITES = {
    ("demo", "json"): ("demo --json x.json", "x.json", "launch.commands.demo.demo"),
    ("run", "json"): ("run run.yaml --json x.json", "x.json", "launch.commands.run.run"),
    ("reconstruct", "output"): (
        "reconstruct in.cxi --output x.cxi", "x.cxi", "launch.commands.reconstruct.reconstruct",
    ),
    ("reconstruct", "json"): (
        "reconstruct in.cxi --json x.json", "x.json", "launch.commands.reconstruct.reconstruct",
    ),
    ("reconstruct", "product"): (
        "reconstruct in.cxi --product x.h5", "x.h5", "launch.commands.reconstruct.reconstruct",
    ),
    ("orient", "json"): ("orient in.cxi --json x.json", "x.json", "launch.commands.orient.orient"),
    ("init", "output"): ("init x.yaml --scan in.cxi", "x.yaml", "launch.commands.init.tell_of_scan"),
    ("ledger", "csv"): ("ledger scans/0000-a --csv x.csv", "x.csv", "launch.commands.ledger.standings"),
    ("ledger", "json"): ("ledger scans/0000-a --json x.json", "x.json", "launch.commands.ledger.standings"),
    ("simulate", "output"): ("simulate x.cxi", "x.cxi", "launch.beamline.simulation.simulate_scan"),
    ("train", "output"): (
        "train tiny.yaml --output .", "tiny.safetensors", "launch.training.train.start_network",
    ),
    ("keys", "folder"): ("keys . me", "me.key_secret", "zmq.curve_keypair"),
}  # fmt: skip
READS = {
    ("check", "save"), ("replay", "store"), ("reconstruct", "store"), ("reconstruct", "mask"),
    ("orient", "store"), ("orient", "mask"), ("simulate", "config"), ("train", "recipe"), ("ledger", "scan"),
    ("init", "scan"), ("replay", "key"), ("replay", "peers"), ("stage", "key"), ("stage", "peers"),
    ("replay-decisions", "scan"), ("watch", "key"), ("watch", "peers"), ("steer", "key"), ("steer", "peers"),
}  # fmt: skip
CHANGES = {("orient", "write")}  # a copy of what it was stays beside it
ADDS = {
    ("replay", "folder"),
    ("demo", "save"),
    ("run", "save"),
    ("stage", "cache"),
}  # folders in which all has a new name


def paths_of_commands() -> Iterator[tuple[str, str]]:
    for command in app.registered_commands:
        for parameter in parameters(command.callback):
            if Path in (parameter.kind, *get_args(parameter.kind)):
                yield command.name or command.callback.__name__, parameter.name


def test_every_path_that_a_command_takes_is_known_as_read_or_written():
    assert set(paths_of_commands()) == {*WRITES, *READS, *CHANGES, *ADDS}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one input of each kind."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN)
    np.save("positions.npy", np.zeros((4, 2)))
    Path("sim.yaml").write_text("{n_rows: 2, n_columns: 2, recipe: train.yaml}")
    for name in ("train.yaml", "tiny.yaml", "tiny.json"):
        Path(name).write_text(yaml.safe_dump(TINY_RECIPE))
    write_scan(Path("in.cxi"), simulate_scan(Simulation(n_rows=3, n_columns=3)), "test")
    make_scan(Path("scans"), "0000-a")
    return tmp_path


def test_a_file_that_the_scan_only_links_to_is_read_too(call):
    with h5py.File("in.cxi", "r+") as file, h5py.File("raw.h5", "w") as raw:
        raw["frames"] = file["entry_1/instrument_1/detector_1/data"][...]
        del file["entry_1/instrument_1/detector_1/data"]
        file["entry_1/instrument_1/detector_1/data"] = h5py.ExternalLink("raw.h5", "/frames")
    line = "reconstruct in.cxi --output raw.h5 --overwrite"
    status, said = call(line, WRITES["reconstruct", "output"][2])
    assert status == 2
    assert "would replace what is read, raw.h5" in said


class BegunError(RuntimeError):
    """The work has begun."""


@pytest.fixture
def call(files, monkeypatch, capsys):
    """Runs a command whose work ends as it begins; returns exit status and what it said of errors."""

    def begin(*arguments, **options):
        raise BegunError("begun")

    def run(line: str, work: str) -> tuple[int, str]:
        monkeypatch.setattr(work, begin)
        monkeypatch.setattr("sys.argv", ["ptychostream", *line.split()])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("option", WRITES, ids=" ".join)
def test_no_command_replaces_a_file_that_it_was_not_told_to(call, option):
    line, output, work = WRITES[option]
    Path(output).write_bytes(b"old")
    status, said = call(line, work)
    assert status == 2
    assert output in said and "--overwrite" in said
    assert call(f"{line} --overwrite", work) == (2, "ptychostream: begun\n")
    assert Path(output).read_bytes() == b"old"


@pytest.mark.parametrize(
    ("line", "failing"),
    [
        ("simulate x.cxi --rows 2 --columns 2", "x.cxi"),
        *(
            ("reconstruct in.cxi --epochs 1 --no-frc --output x.cxi --product x.h5 --json x.json", name)
            for name in ("x.cxi", "x.png", "x-report.html", "x-report.png", "x.h5", "x.json")
        ),
    ],
)
def test_a_file_that_cannot_be_written_to_its_end_stays_what_it_was(
    files, undrawn, monkeypatch, line, failing
):
    def sync(temporary: Path) -> None:
        if temporary.name.startswith(f".{failing}."):
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("stream.atomic.sync", sync)
    monkeypatch.setattr("sys.argv", ["ptychostream", *line.split(), "--overwrite"])
    Path(failing).write_bytes(b"old")
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert Path(failing).read_bytes() == b"old"
    assert not [path for path in files.iterdir() if path.name.startswith(".")]


def test_a_file_is_replaced_on_request(files, monkeypatch):
    before = Path("in.cxi").read_bytes()
    monkeypatch.setattr(
        "sys.argv", ["ptychostream", "simulate", "in.cxi", "--rows", "2", "--columns", "2", "--overwrite"]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert Path("in.cxi").read_bytes() != before


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("run run.yaml --json run.yaml", "run.yaml"),
        ("run run.yaml --json positions.npy", "positions.npy"),
        ("reconstruct in.cxi --output in.cxi", "in.cxi"),
        ("reconstruct in.cxi --output x.cxi --json in.cxi", "in.cxi"),
        ("orient in.cxi --json in.cxi", "in.cxi"),
        ("init in.cxi --scan in.cxi", "in.cxi"),
        ("ledger scans/0000-a --json scans/0000-a/scan.json", "scans/0000-a/scan.json"),
        ("simulate sim.yaml --config sim.yaml", "sim.yaml"),
        ("simulate train.yaml --config sim.yaml", "train.yaml"),
        ("train tiny.json --output .", "tiny.json"),
    ],
)
def test_no_command_replaces_what_it_reads(call, line, read):
    before = Path(read).read_bytes()
    work = next(work for (command, _), (_, _, work) in WRITES.items() if command == line.split()[0])
    status, said = call(f"{line} --overwrite", work)
    assert status == 2
    assert "would replace what is read" in said and read in said
    assert Path(read).read_bytes() == before


def test_a_link_that_leads_in_a_circle_is_no_place_to_write(tmp_path):
    (tmp_path / "here.cxi").symlink_to(tmp_path / "there.cxi")
    (tmp_path / "there.cxi").symlink_to(tmp_path / "here.cxi")
    for path in (tmp_path / "here.cxi", tmp_path / "here.cxi" / "below.cxi"):
        with pytest.raises(OSError, match=r"--output: .*here\.cxi.* cannot be written: its symlinks"):
            check_outputs({"--output": path}, overwrite=True)


@pytest.mark.parametrize(
    ("line", "work"),
    [
        ("reconstruct in.cxi --output x.png", WRITES["reconstruct", "output"][2]),
        ("reconstruct in.cxi --output x.cxi --json x.cxi", WRITES["reconstruct", "output"][2]),
        ("reconstruct in.cxi --output x.cxi --json x-report.html", WRITES["reconstruct", "output"][2]),
    ],
)
def test_two_outputs_of_a_command_are_two_files(call, line, work):
    status, said = call(line, work)
    assert status == 2
    assert "would both be written to" in said
