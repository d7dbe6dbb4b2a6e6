"""The templates beside the pages: their syntax, and that their commands are commands with these options."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from launch.cli import app
from tests.helpers.documentation import ROOT

FOLDER = ROOT / "docs" / "templates"
TEMPLATES = sorted(FOLDER.iterdir())
UNITS = [path for path in TEMPLATES if path.suffix == ".service"]
# What Slurm, systemd and the shell put there.
VALUES = {
    "SLURM_CPUS_PER_TASK": "4",
    "RUN": "tcp://beamline-pc:5812",
    "KEYS": "/keys",
    "STATE_DIRECTORY": "/s",
}


def commands_in(path: Path) -> list[list[str]]:
    """Every command of ptychostream in a template, in words, its variables filled in."""
    text = re.sub(r"\\\n", " ", path.read_text())
    text = re.sub(r"\$\{?(\w+)\}?", lambda name: VALUES.get(name[1], name[0]), text).replace("%i", "siemens")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = [re.search(r"\bptychostream (run|stage) .*", line) for line in lines]
    return [shlex.split(command[0]) for command in found if command]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_understood_by_systemd(path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_script_of_slurm_is_one_and_asks_for_what_it_needs(script):
    subprocess.run(["bash", "-n", script], check=True)
    refused = subprocess.run(["bash", script], capture_output=True, text=True, env={}, check=False)
    assert refused.returncode != 0
    assert "RUN: address of the run" in refused.stderr


@pytest.mark.parametrize(
    "path", [path for path in TEMPLATES if path.name != "Containerfile"], ids=lambda path: path.name
)
def test_commands_are_spelt_as_they_are(path):
    commands = commands_in(path)
    assert commands
    for _, name, *arguments in commands:
        get_command(app).commands[name].make_context(name, arguments)


def test_the_container_starts_a_command_that_the_project_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (FOLDER / "Containerfile").read_text()
    assert re.search(r'^ENTRYPOINT \["(\w+)"\]$', text, re.MULTILINE)[1] in project["scripts"]
    assert set(re.findall(r"\[([\w-]+)\]", text.partition("FROM")[0])) <= set(
        project["optional-dependencies"]
    )
    assert (
        re.search(r'pip install --no-cache-dir "/src\[(\w+)\]"', text)[1] in project["optional-dependencies"]
    )
