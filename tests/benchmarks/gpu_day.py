"""Everything that a GPU is needed for, in the eight minutes that one is at hand.

    python -m tests.benchmarks.gpu_day --collect WHEELS      beforehand, where there is an index
    python -m tests.benchmarks.gpu_day FOLDER --rehearse     beforehand, on any computer: all of it, small
    python -m tests.benchmarks.gpu_day FOLDER --wheels WHEELS

Each part is a process with a time limit of its own. One that fails leaves the reason, the last lines of its
log and of those of its stages, and the others go on. FOLDER gets figures.json, the parts' logs, and logs.zip
with those of the stages. Imports the standard library alone: the rest may have to be installed first.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from launch.child_process import describe_status
from stream.plain_json import plain_json

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "ptychostream"
TEST_TOOLS = ("pytest", "pytest-xdist", "pytest-timeout", "hypothesis")
MINUTES = 8.0
LOG_LINES, STAGE_LINES = 15, 5
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PIP_BREAK_SYSTEM_PACKAGES": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing to do: what runs, and how long it may take, seconds."""

    name: str
    command: Sequence[str]
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a part: figures by name, and if it failed why, with the last lines of every log."""

    status: Literal["done", "failed", "not begun"]
    seconds: float = 0.0
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    last_lines: dict[str, list[str]] = field(default_factory=dict)


def parts(*, rehearses: bool, wheels: Path | None, work: Path) -> list[Part]:
    """Return what is to be done, what was never measured first.

    Parameters
    ----------
    rehearses : bool
        The same parts small and on the processor.
    wheels : Path, optional
        Folder of `collect`, to install what is missing from.
    work : Path
        Folder for what the parts write.
    """
    python = sys.executable
    listed = []
    if wheels is not None:
        needed = requirements("pipeline" if rehearses else cuda_extra(wheels))
        pip = [python, "-m", "pip", "install", "--no-index", "--find-links", str(wheels), *needed]
        listed.append(Part(name="install", command=pip, limit_s=120.0))
    small = ["--rehearse"] if rehearses else []
    for name, limit_s in (("live_gpu", 170.0), ("network_gpu", 75.0), ("engines_gpu", 150.0)):
        files = ["--json", str(work / f"{name}.json"), "--folder", str(work / name)]
        command = [python, "-m", "tests.benchmarks", name, *files, *small]
        listed.append(Part(name=name, command=command, limit_s=limit_s))
    what = ["-m", "cuda", "tests/operators", "tests/stream/stages"]
    if rehearses:  # the same test on all backends, one of which is not there
        what = ["-m", "cuda or not cuda", "tests/operators/test_patches.py"]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *what]
    return [*listed, Part(name="cuda_tests", command=command, limit_s=180.0)]


def run_part(part: Part, folder: Path, work: Path, limit_s: float) -> Outcome:
    """Run one part in its own process, and return what came of it; its log is `folder`/NAME.log."""
    log, began = folder / f"{part.name}.log", time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            part.command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | ENVIRONMENT,
        )
        try:
            process.wait(limit_s)
            why = "" if not process.returncode else _status_in_words(process.returncode)
        except subprocess.TimeoutExpired:
            why = f"not done after {limit_s:.0f} s"
        finally:
            _end(process)
    figures = _figures_of(part.name, log, work)
    if not why and part.name == "cuda_tests" and not figures.get("passed"):
        why = "no test ran"
    lines = {}
    if why:
        why = ": ".join(filter(None, (why, str(figures.get("why", "")).partition("\n")[0])))
        lines = {part.name: last_lines(log, LOG_LINES)}
        lines |= {path.stem: last_lines(path, STAGE_LINES) for path in _stage_logs(work / part.name)}
    seconds = time.monotonic() - began
    return Outcome(
        status="failed" if why else "done", seconds=seconds, why=why, figures=figures, last_lines=lines
    )


def run_parts(listed: Sequence[Part], folder: Path, work: Path, minutes: float) -> dict[str, Outcome]:
    """Run the parts one after the other until the time is used up; figures.json has each once it is done."""
    deadline = time.monotonic() + minutes * 60
    outcomes = {part.name: Outcome(status="not begun", why="no time was left") for part in listed}
    for part in listed:
        left_s = deadline - time.monotonic()
        if left_s > 1:
            print(f"{part.name} ...", flush=True)
            outcomes[part.name] = outcome = run_part(part, folder, work, min(part.limit_s, left_s))
            print(f"{part.name} {outcome.status} in {outcome.seconds:.0f} s {outcome.why}", flush=True)
            for log, lines in outcome.last_lines.items():
                print("\n".join([f"  {log}:", *(f"    {line}" for line in lines)]), flush=True)
        written = {name: asdict(outcome) for name, outcome in outcomes.items()}
        (folder / "figures.json").write_bytes(plain_json(written, indent=1) + b"\n")
    return outcomes


def collect(wheels: Path, cuda: str, python: str, has: Sequence[str]) -> int:
    """Download what `--wheels` installs; return pip's exit status.

    Parameters
    ----------
    wheels : Path
        Folder that gets the wheels.
    cuda : {"12", "13"}
        Major version of CUDA.
    python : str
        Version of Python on the computer with the GPU, as 3.12.
    has : sequence of str
        Distributions that are there already, and large: they are left out.
    """
    needed = [line for line in requirements(f"gpu-cuda{cuda}") if _name(line) not in map(_name, has)]
    wheels.mkdir(parents=True, exist_ok=True)
    (wheels / "cuda").write_text(cuda + "\n")
    options = ["--dest", str(wheels), "--only-binary", ":all:", "--python-version", python]
    return subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, *needed], check=False
    ).returncode


def cuda_extra(wheels: Path) -> str:
    """Return the extra that the wheels were collected for."""
    return f"gpu-cuda{(wheels / 'cuda').read_text().strip()}"


def requirements(extra: str) -> list[str]:
    """Return what pyproject.toml asks for with this extra, and what runs the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    found, wanted = list(project["dependencies"]), [extra]
    for name in wanted:
        for line in optional[name]:
            if _name(line) == DISTRIBUTION:
                wanted.extend(line.partition("[")[2].rstrip("]").split(","))
            else:
                found.append(line)
    tools = {_name(line): line for line in optional["dev"]}
    return [*found, *(tools[name] for name in TEST_TOOLS)]


def last_lines(log: Path, n_lines: int) -> list[str]:
    """Return the last lines of a log that say something."""
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-n_lines:]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def _status_in_words(status: int) -> str:
    name = f" ({signal.Signals(-status).name})" if status < 0 else ""
    return describe_status(status) + name


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the part and what it left behind: the next one needs the device for itself."""
    children = _descendants(process.pid)
    for pid in (process.pid, *children):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _descendants(pid: int) -> list[int]:
    """Return the processes that `pid` has started and what those have: stages have groups of their own."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        own = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it is gone, and with it, a moment later, its stages
        return []
    return own + [grandchild for child in own for grandchild in _descendants(child)]


def _figures_of(name: str, log: Path, work: Path) -> dict[str, Any]:
    if name == "cuda_tests":
        summary = (last_lines(log, 1) or [""])[0]
        return {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", summary)}
    try:
        figures: dict[str, Any] = json.loads((work / f"{name}.json").read_text())
    except OSError:
        return {}
    return figures


def _stage_logs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.log")) if folder.is_dir() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return 0 if every part is done."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu_day",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="gets figures and logs")
    parser.add_argument("--rehearse", action="store_true", help="all of it, small and on the processor")
    parser.add_argument("--wheels", type=Path, metavar="WHEELS", help="installs what is missing from there")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together (%(default)g)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts, by name")
    parser.add_argument("--collect", type=Path, metavar="WHEELS", help="downloads the wheels, and is done")
    parser.add_argument("--cuda", choices=("12", "13"), default="13", help="of --collect (%(default)s)")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("--python", default=own, help="of --collect: version there (%(default)s)")
    parser.add_argument(
        "--has", nargs="+", default=[], metavar="NAME", help="of --collect: what is there already, as torch"
    )
    options = parser.parse_args(arguments)
    if options.collect:
        return collect(options.collect, options.cuda, options.python, options.has)
    if options.folder is None:
        parser.error("expected a FOLDER for figures and logs, or --collect WHEELS")
    wheels = options.wheels and options.wheels.absolute()
    if wheels and not (wheels if options.rehearse else wheels / "cuda").exists():
        parser.error(f"{wheels} is no folder that --collect has filled")
    folder: Path = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty: name a new folder")
    with tempfile.TemporaryDirectory(prefix="gpu-day-") as temporary:
        work = Path(temporary)
        listed = parts(rehearses=options.rehearse, wheels=wheels, work=work)
        unknown = set(options.only or ()) - {part.name for part in listed}
        if unknown:
            parser.error(f"no part {', '.join(unknown)}: there are {', '.join(part.name for part in listed)}")
        listed = [part for part in listed if not options.only or part.name in options.only]
        outcomes = run_parts(listed, folder, work, options.minutes)
        with zipfile.ZipFile(folder / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for log in _stage_logs(work):
                archive.write(log, log.relative_to(work))
    print(f"figures and logs in {folder}")
    return 0 if all(outcome.status == "done" for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
