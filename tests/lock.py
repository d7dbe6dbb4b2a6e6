"""Writes the lock files in `requirements/` from pyproject.toml: `python -m tests.lock`.

A file each for what is installed without extras, at a beamline, and to work on the code; every package with
its version and the hashes of its files, for every Python and system that we support. PyTorch and the CUDA
libraries that its common build brings lie in a file of their own, so that who has a build for processors does
not get them.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
EXTRAS: dict[str, tuple[str, ...]] = {"client": (), "beamline": ("beamline", "fast"), "dev": ("dev",)}
TORCH = "torch"
HEADER = "# Written by `python -m tests.lock`; docs/how-to/contribute.md says how it is used.\n"
PROJECT = "ptychostream"


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock file.

    Attributes
    ----------
    name : str
        Canonical.
    version : Version
    marker : Marker or None
        For which Python and system.
    hashes : tuple of str
    wanted_by : frozenset of str
        Canonical names of those that need it.
    text : str
        As it stands in the file.
    """

    name: str
    version: Version
    marker: Marker | None
    hashes: tuple[str, ...]
    wanted_by: frozenset[str]
    text: str


def pins(text: str) -> list[Pin]:
    """Returns the packages of a lock file."""
    blocks = re.findall(r"^\S.*(?:\n[ \t]+.*)*", text, re.MULTILINE)
    return [_pin(block) for block in blocks if not block.startswith("#")]


def _pin(block: str) -> Pin:
    block = re.sub(r"\n +#  +-c .*", "", block)  # a constraint wants nothing
    required = Requirement(block.partition("\\\n")[0].strip())
    (specifier,) = required.specifier
    if specifier.operator != "==":
        raise ValueError(f"{block}: wanted name==version")
    comments = " ".join(re.findall(r"# *(?:via)?(.*)", block))
    return Pin(
        name=canonicalize_name(required.name),
        version=Version(specifier.version),
        marker=required.marker,
        hashes=tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block)),
        wanted_by=frozenset(canonicalize_name(name) for name in re.findall(r"[\w.-]+(?= |$)", comments)),
        text=block,
    )


def brought_by_torch(locked: list[Pin]) -> set[str]:
    """Returns PyTorch and the names of what nothing but PyTorch wants, however far down."""
    found, before = {TORCH}, set[str]()
    while found != before:
        before = set(found)
        found |= {pin.name for pin in locked if pin.wanted_by and pin.wanted_by <= found}
    return found


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """Returns what pyproject.toml asks for with these extras, those that they name included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed, waiting, seen = [*project["dependencies"]], [*extras], set[str]()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for text in project["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if canonicalize_name(requirement.name) == PROJECT:
                waiting += requirement.extras
            else:
                listed.append(text)
    return [Requirement(text) for text in listed]


def main() -> int:
    """Writes all files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.lock", description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="takes the newest versions of everything")
    options = parser.parse_args()
    locked = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, with_those_of in (("beamline", ""), ("dev", "beamline"), ("client", "dev")):
            output = Path(folder, f"{name}.txt")
            if (before := FOLDER / output.name).exists() and not options.upgrade:
                torch = FOLDER / f"{TORCH}.txt"
                output.write_text(before.read_text() + (torch.read_text() if torch.exists() else ""))
            # What is used is what is tested: the same versions everywhere.
            constraints = ["--constraint", str(Path(folder, f"{with_those_of}.txt"))] if with_those_of else []
            locked[name] = _compiled(output, EXTRAS[name], *constraints, upgrades=options.upgrade)
    FOLDER.mkdir(exist_ok=True)
    apart = brought_by_torch(locked["beamline"])
    for name, packages in locked.items():
        _write(name, [pin for pin in packages if pin.name not in brought_by_torch(packages)])
    _write(TORCH, [pin for pin in locked["beamline"] if pin.name in apart])
    return 0


def _compiled(output: Path, extras: tuple[str, ...], *arguments: str, upgrades: bool) -> list[Pin]:
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal", "--quiet"]
    command += ["--generate-hashes", "--no-header", "--output-file", str(output)]
    command += [part for extra in extras for part in ("--extra", extra)]
    command += ["--upgrade"] if upgrades else []
    subprocess.run([*command, *arguments], cwd=ROOT, check=True)
    return pins(output.read_text())


def _write(name: str, packages: list[Pin]) -> None:
    path = FOLDER / f"{name}.txt"
    path.write_text(HEADER + "".join(f"{pin.text}\n" for pin in packages))
    print(f"{path.relative_to(ROOT)}: {len(packages)} packages")


if __name__ == "__main__":
    sys.exit(main())
