"""Without extras: which modules the clients may load, and what commands say that need more."""

import ast
import subprocess
import sys
import tomllib
import venv
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from launch.extras import EXTRA_OF, missing_extra
from tests.helpers.stream.fake_door import FakeDoor

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"operators", "stream", "launch"}
packages_distributions = cache(metadata.packages_distributions)  # looks through every file that is installed

# Makes this process see none of the packages that its first argument names.
BLOCKED = """
import importlib.abc, sys
missing = set(sys.argv.pop(1).split())
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""

COMMANDS = """
from launch.cli import main
for words in sys.argv.pop(1).split(";"):
    sys.argv = ["ptychostream", *words.split()]
    try:
        main()
    except SystemExit as end:
        print("STATUS", end.code)
"""

SIX_LINES = """
from stream.client import LiveReconstruction

with LiveReconstruction(sys.argv[1]) as live:
    for image in live:
        print(image.version, image.frames_seen, image.object.shape)
"""


def _distributions(requirements: list[str]) -> set[str]:
    """Names of the distributions that an installer would bring for `requirements`."""
    found, waiting = set(), [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = requirement.name.lower().replace("_", "-")
        if name not in found:
            found.add(name)
            waiting += [Requirement(text) for text in metadata.requires(name) or ()]
    return found


def _modules(requirements: list[str]) -> set[str]:
    wanted = _distributions(requirements)
    names = packages_distributions().items()
    return {module for module, by in names if {name.lower().replace("_", "-") for name in by} & wanted}


def _light(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs code where no package can be imported that does not come without extras."""
    missing = packages_distributions().keys() - OURS - _modules(PROJECT["dependencies"])
    command = [sys.executable, "-c", BLOCKED + code, " ".join(sorted(missing)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)


def test_the_installation_without_extras_is_five_packages():
    names = [Requirement(text).name for text in PROJECT["dependencies"]]
    assert names == ["numpy", "pyzmq", "msgspec", "typer", "rich"]


def test_every_foreign_module_comes_with_the_installation_or_an_extra():
    light = _modules(PROJECT["dependencies"])
    # CuPy is asked for by name where there is a GPU (operators.arrays), and says itself which extra it needs.
    known = OURS | light | set(EXTRA_OF) | set(sys.stdlib_module_names) | {"cupy", "cupyx"}
    unknown = {}
    for file in (file for room in OURS for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            unknown |= {name: file.name for name in names if name.partition(".")[0] not in known}
    assert not unknown


@pytest.mark.parametrize("extra", ["pipeline", "beamline", "fast", "train", "ray"])
def test_each_extra_brings_the_modules_it_is_named_for(extra):
    foreign = [text for text in PROJECT["optional-dependencies"][extra] if "ptychostream" not in text]
    installed, brought = packages_distributions(), _modules(foreign)
    for module in (module for module, of in EXTRA_OF.items() if of == extra):
        error = ModuleNotFoundError(f"No module named {module!r}", name=f"{module}.deeper")
        assert missing_extra(error) == f"needs the extra {extra!r}: pip install 'ptychostream[{extra}]'"
        assert module in brought or module not in installed


def test_extras_contain_the_pipeline():
    extras = PROJECT["optional-dependencies"]
    for extra in ("beamline", "fast", "train", "ray", "gpu-cuda12", "gpu-cuda13"):
        assert extras[extra][0] == "ptychostream[pipeline]"
    assert extras["dev"][0].startswith("ptychostream[beamline,fast,train")


def test_an_extra_is_named_for_known_modules_only():
    assert missing_extra(ModuleNotFoundError("No module named 'ours'", name="ours")) is None
    assert missing_extra(ImportError("cannot import")) is None


def test_watch_steer_and_keys_run_without_extras(tmp_path):
    done = _light(COMMANDS, f"--help;watch --help;steer --help;keys {tmp_path} viewer;watch tcp://nowhere")
    ends = [line for line in done.stdout.splitlines() if line.startswith("STATUS")]
    assert ends == [*["STATUS 0"] * 4, "STATUS 2"], done.stderr
    assert (tmp_path / "viewer.key_secret").is_file()
    assert done.stderr.startswith("ptychostream: address 'tcp://nowhere': wanted tcp://host:port")


def test_a_command_whose_extra_is_missing_names_it_in_one_line():
    commands = {
        "run demo": "pipeline",
        "check demo": "pipeline",
        "replay scan.cxi": "pipeline",
        "reconstruct scan.cxi": "pipeline",
        "simulate scan.cxi": "pipeline",
        "train recipe.yaml": "pipeline",
        "replay-decisions scan": "pipeline",
        "demo": "beamline",
        "demo --adaptive": "beamline",
    }
    done = _light(COMMANDS, ";".join(commands))
    assert done.stdout.splitlines() == ["STATUS 2"] * len(commands)
    assert done.stderr.splitlines() == [
        f"ptychostream {words.split()[0]}: needs the extra {extra!r}: pip install 'ptychostream[{extra}]'"
        for words, extra in commands.items()
    ]


def test_the_clients_follow_a_live_image_without_extras():
    with FakeDoor() as door:
        door.begin("a")
        door.publish(np.full((8, 8), 1 + 1j, np.complex64), is_final=True)
        assert _light(SIX_LINES, door.address).stdout == "1 1 (8, 8)\n"
        watched = _light(COMMANDS, f"watch {door.address}")
    assert "scan complete" in watched.stdout, watched.stderr


IMPORT_CPU_S = "import time; import stream.client; print(time.process_time())"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fresh_environment_without_extras_is_small_and_its_client_starts_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    venv.create(tmp_path)
    python = tmp_path / "bin" / "python"

    def told(*arguments: str | Path) -> str:
        done = subprocess.run([python, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.strip()

    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", str(ROOT)]
    subprocess.run(pip, check=True, cwd=tmp_path)
    folder = Path(told("-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 150e6
    # Of the processor: on a busy machine the clock on the wall tells about others.
    assert min(float(told("-c", IMPORT_CPU_S)) for _ in range(5)) < 0.3
    assert "Follows a live reconstruction" in told("-m", "launch", "watch", "--help")
