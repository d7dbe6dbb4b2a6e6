"""The demo: a simulated beamline, the whole pipeline in its real processes, and how well it did.

Everything the pipeline sees comes over the wires of a beamline; only this file knows the truth.
"""

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from rich.console import Console

from launch.config.config import Config
from launch.config.file import load_config, override
from launch.results.summary import read_summary, show_summary, write_summary
from launch.run.finish import finish, tell_reached
from launch.run.network_choice import for_the_rate
from launch.run.processes import RunFailedError
from launch.run.progress import progress_on
from launch.run.stages import resolve
from launch.run.start import start, stay
from launch.run.supervisor import Supervisor
from launch.run.surroundings import check_writable
from stream.record.scan import Scan
from stream.wire.sockets import Endpoint

if TYPE_CHECKING:
    from launch.beamline.simulation import Simulation

SCAN_TIMEOUT_S = 300.0
LOG_LINES = 15
Beamline: TypeAlias = tuple[Any, ...]
PORTS = range(20_000, 32_000)  # below those that the system gives to outgoing connections


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demo shows.

    Attributes
    ----------
    save : Path
        Folder for scans, results, store and logs.
    rate_hz : float
        Frames per second.
    n_frames : int
        Rounded up to whole rows of a square raster.
    sample : str
        Family of simulated samples (operators.optics.samples).
    seed : int
    stores : bool
        Whether the scan goes into the store.
    """

    save: Path
    rate_hz: float
    n_frames: int
    sample: str
    seed: int
    stores: bool

    @property
    def simulated(self) -> dict[str, Any]:
        """What it says of its `Simulation`, by the names of the fields."""
        n_rows = max(round(self.n_frames**0.5), 2)
        n_columns = max(-(-self.n_frames // n_rows), 2)
        return {"n_rows": n_rows, "n_columns": n_columns, "family": self.sample, "seed": self.seed}

    @property
    def simulation(self) -> "Simulation":
        """The simulated scan."""
        from launch.beamline.simulation import Simulation  # a second, which the start of a demo must not wait

        return Simulation(**self.simulated)


def demo(
    options: DemoOptions,
    *,
    json_file: Path | None = None,
    opens_browser: bool = False,
    console: Console | None = None,
) -> int:
    """Runs the demo; returns 0 if every frame is in the picture, otherwise 1."""
    console = console or Console()
    begin_s = time.monotonic()
    config = demo_config(options)

    def tell(figures: dict[str, Any]) -> None:
        figures["wall_s"] = time.monotonic() - begin_s
        show_summary(figures, console)
        if json_file:
            write_summary(json_file, figures)

    figures = run_demo(options, config, console, opens_browser=opens_browser, json_file=json_file, tell=tell)
    return 0 if figures["is_complete"] else 1


def run_demo(
    options: DemoOptions,
    config: Config,
    console: Console,
    *,
    opens_browser: bool = False,
    json_file: Path | None = None,
    on_scan: Callable[[Scan], None] = lambda scan: None,
    tell: Callable[[dict[str, Any]], None] = lambda figures: None,
) -> dict[str, Any]:
    """Runs the simulated beamline and the pipeline; returns the figures of the summary.

    Parameters
    ----------
    options : DemoOptions
    config : Config
        Of `demo_config`.
    console : rich.console.Console
    opens_browser : bool
        Whether to show the page as soon as there is one.
    json_file : Path, optional
        Gets the figures of the newest scan if it is asked to end.
    on_scan : callable
        Gets the scan many times a second while it goes on.
    tell : callable
        Gets the figures when there are all of them; the page stays on while somebody looks at it.

    Raises
    ------
    RunFailedError
        If the beamline or a stage cannot run.
    """
    settings = {  # of `launch.beamline.flown.BeamlineConfig`, which loads bluesky
        "detector": Endpoint(address=config.detector.address),
        "positions": config.positions.address,
        "rate_hz": options.rate_hz,
        "simulation": options.simulated,
    }
    beamline = "launch.beamline.flown", settings, "--wait"
    with beside_beamline(
        config, beamline, console, opens_browser=opens_browser, json_file=json_file, on_scan=on_scan
    ) as ((scan,), restarts):
        from launch.beamline.accuracy import accuracy
        from launch.beamline.simulation import simulate_scan

        figures = read_summary(config.save, scan) | {"restarts": restarts, "offered_hz": options.rate_hz}
        figures |= accuracy(scan, simulate_scan(options.simulation))
        tell(figures)
    return figures


@contextmanager
def beside_beamline(
    config: Config,
    beamline: Beamline,
    console: Console,
    *,
    opens_browser: bool = False,
    n_series: int = 1,
    json_file: Path | None = None,
    on_scan: Callable[[Scan], None] = lambda scan: None,
) -> Iterator[tuple[list[Scan], int]]:
    """Runs the pipeline and a simulated beamline; gives the scans and how often a stage was restarted.

    The pipeline is still there inside the context, and at its end as long as a browser shows the page. If it
    is asked to end before, it finishes what is recorded, says what that is, and ends.

    Parameters
    ----------
    config : Config
    beamline : tuple
        Module of the beamline's process, what its file of settings holds, and further arguments.
    console, opens_browser, json_file, on_scan
        As for `run_demo`.
    n_series : int
        The beamline is told to go for each, when the one before is done.

    Raises
    ------
    RunFailedError
        If the beamline or a stage cannot run.
    KeyboardInterrupt
        If it was asked to end before the series were done.
    """
    line = progress_on(console)
    config, choice = for_the_rate(config)
    with (
        Supervisor(resolve(config), on_notice=line.notice, on_event=line.event) as supervisor,
        _process(*beamline, folder=supervisor.run.folder) as process,
    ):

        def on_turn(scans: list[Scan]) -> None:
            process.check()
            line.show(scans, supervisor.state)
            for scan in scans:
                on_scan(scan)

        with line:
            try:
                start(supervisor, console, line, choice=choice, opens_browser=opens_browser)
                for index in range(n_series):
                    process.go()
                    supervisor.wait_for_series(index + 1, SCAN_TIMEOUT_S, on_turn)
            except KeyboardInterrupt:
                finish(supervisor, console, line)
                _tell_interrupted(supervisor, console, json_file)
                raise
        if len(supervisor.scans()) < n_series:
            raise ValueError(f"{config.save} has no room for the scan: make room or use another --save")
        yield supervisor.scans(), supervisor.n_restarts
        stay(supervisor, console)
        supervisor.stop()


def _tell_interrupted(supervisor: Supervisor, console: Console, json_file: Path | None) -> None:
    reached = tell_reached(supervisor, console)
    if json_file:
        write_summary(json_file, reached[-1] if reached else {"is_complete": False})


def demo_config(options: DemoOptions, policy: dict[str, Any] | None = None) -> Config:
    """Returns the configuration `demo` of launch/recipes on free addresses of this machine.

    Parameters
    ----------
    options : DemoOptions
    policy : dict, optional
        Settings of a policy that runs beside the pipeline.
    """
    check_writable(options.save.absolute(), "another --save")
    usual = load_config("demo")
    settings = {
        "detector.address": f"tcp://127.0.0.1:{free_port()}",
        "detector.bind": "true",
        "positions.address": f"tcp://127.0.0.1:{free_port()}",
        "live.address": _usual_or_free(usual.live.address),
        "viewer.port": free_port(usual.viewer.port),
        "detector.rate_hz": options.rate_hz,
        "store.enabled": str(options.stores).lower(),
    }
    overrides = [override("save", options.save.absolute())]
    overrides += [f"{key}={value}" for key, value in settings.items()]
    config = load_config("demo", overrides=overrides)
    if policy is None:
        return config
    steering = {"enabled": True, "address": _usual_or_free(usual.policy.address), **policy}
    return Config.model_validate(config.model_dump() | {"policy": steering})


class _Beamline:
    """The process of the simulated beamline, waiting to be told to go."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def go(self) -> None:
        """Starts the scan."""
        assert self._process.stdin is not None  # noqa: S101  (it was opened with a pipe)
        self.check()
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def check(self) -> None:
        """Raises RunFailedError if the beamline died."""
        if self._process.poll():
            tail = "\n".join(self._log.read_text().splitlines()[-LOG_LINES:])
            raise RunFailedError(f"the simulated beamline ended with {self._process.returncode}:\n{tail}")


@contextmanager
def _process(module: str, settings: object, *arguments: str, folder: Path) -> Iterator[_Beamline]:
    """Start a beamline, so that it prepares its scan while the stages get ready."""
    file, log = folder / "beamline.json", folder / "beamline.log"
    file.write_bytes(msgspec.json.encode(settings, enc_hook=str))
    command = [sys.executable, "-m", module, str(file), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield _Beamline(process, log)
    finally:
        process.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()


def _usual_or_free(address: str) -> str:
    """Return `address` if its port is free, so that clients find it without being told, or one that is."""
    return f"tcp://127.0.0.1:{free_port(int(address.rpartition(':')[2]))}"


def free_port(preferred: int | None = None) -> int:
    """Returns a TCP port of this machine that nobody uses, `preferred` if it is such a one.

    Raises
    ------
    OSError
        If a hundred of them are in use.
    """
    choices = [secrets.choice(PORTS) for _ in range(100)]
    for port in choices if preferred is None or not _claim(preferred) else [preferred, *choices]:
        with suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            return port
    raise OSError(f"found no free port between {PORTS.start} and {PORTS.stop}")


def _claim(port: int) -> bool:
    """Return whether no other demo is about to use `port`, which is free until one has started."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0ptychostream-demo-{port}")  # a name without a file, gone with the process
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True
