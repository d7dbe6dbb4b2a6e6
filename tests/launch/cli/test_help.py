import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from launch.beamline.simulation import Simulation
from launch.cli import app, completion
from launch.cli.scans import SIMULATED
from operators.optics.samples import FAMILIES

COMMANDS = get_command(app).commands


def shown(*arguments: str, columns: int = 80) -> str:
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_or_default_is_cut_at_80_columns(command):
    text = shown(command)
    assert "…" not in text and "..." not in text.replace("]...", "]")
    assert max(map(len, text.splitlines())) <= 80
    words = set(text.replace("[", " ").replace("]", " ").replace(";", " ").split())
    for parameter in COMMANDS[command].params:
        names = (
            {*parameter.opts, *parameter.secondary_opts} if parameter.param_type_name == "option" else set()
        )
        assert {name.strip(",") for name in names} <= {word.strip(",") for word in words}
        if parameter.show_default is True and isinstance(parameter.default, str | int | float | Path):
            default = str(parameter.default)
            assert isinstance(parameter.default, bool) or default in words


def test_the_list_of_commands_shows_their_whole_sentences():
    text = " ".join(shown().split())
    assert "..." not in text.replace("[ARGS]...", "")
    for command in COMMANDS.values():
        assert command.help.partition("\n\n")[0].replace("\n", " ") in text


def test_simulate_shows_what_it_simulates_where_nothing_is_given():
    text, defaults = " ".join(shown("simulate").split()), Simulation()
    for name, field in SIMULATED.items():
        assert f"[default: {getattr(defaults, field)}" in text.partition(f"--{name}")[2].partition(" --")[0]


def test_the_version_names_program_python_and_optional_parts_and_loads_none_of_them():
    code = (
        "import sys; sys.argv = ['ptychostream', '--version']\n"
        "from launch.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, sorted({'numpy', 'torch', 'zmq'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, *extras, end = done.stdout.splitlines()
    assert first.startswith("ptychostream ") and second.startswith(f"Python {sys.version.split()[0]}, ")
    assert f"torch {version('torch')}" in "\n".join(extras)
    assert end == "0 []"


def complete(words: str, monkeypatch) -> list[str]:
    """What bash would be offered for the last of `words`."""
    monkeypatch.setenv("_PTYCHOSTREAM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"ptychostream {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    return CliRunner().invoke(app, [], prog_name="ptychostream").output.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("repl", ["replay-decisions", "replay"]),
        ("run ", ["beamline", "demo", "siemens"]),
        ("check s", ["siemens"]),
        ("simulate --sample si", ["siemens"]),
        ("demo --sample fi", ["filaments"]),
        ("steer tcp://127.0.0.1:5811 h", ["hold"]),
        ("reconstruct scan.cxi --refine", ["--refine-positions"]),
    ],
)
def test_a_shell_is_offered_what_can_follow(words, offered, monkeypatch):
    assert complete(words, monkeypatch) == offered


def test_completion_offers_every_configuration_that_comes_with_the_package():
    assert set(completion.recipes("")) == {"beamline", "demo", "siemens"}
    assert set(FAMILIES) < set(completion.families(""))


@pytest.mark.parametrize("words", [["--positions"], ["--positions", "--frc"]])
def test_who_means_by_positions_what_it_was_is_told_the_new_word(words):
    result = CliRunner().invoke(app, ["reconstruct", "scan.cxi", *words])
    assert result.exit_code == 2
    assert "--refine-positions refines them" in result.output


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--probe", "nothing.npy", "wanted a file, 'file' for the scan's own probe or 'data'"),
        ("--signs", "1", "--signs: wanted two values apart by a comma, got '1'"),
        ("--centre", "a,b", "--centre: wanted two values apart by a comma"),
    ],
)
def test_what_is_no_value_of_an_option_is_named(option, value, words):
    result = CliRunner().invoke(app, ["reconstruct", "scan.cxi", option, value])
    assert words in str(result.exception)
