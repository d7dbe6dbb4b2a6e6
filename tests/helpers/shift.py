"""A shift of the real processes: many short series, and a run that is killed and taken up by the next one."""

import json
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from stream.live.client import LiveReconstruction
from tests.helpers.held import Held, held_by
from tests.helpers.launch.commands import free_address, n_recorded, running
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline

QUICK = ("refinement.epochs=2", "refinement.first_frames=8", "viewer.enabled=true", "viewer.port=0")
ITSELF = "supervisor and client"


def growth_over_series(folder: Path, short: ScannedSample, n_warm: int, n_series: int) -> dict[str, Held]:
    """Return what each process of a run holds more after so many series than after the first `n_warm`.

    The supervisor, a client and the caller are one process, called `ITSELF`.
    """
    with (
        Pipeline(folder, short, *QUICK) as pipeline,
        LiveReconstruction(pipeline.live_address, follow=True) as client,
    ):

        def held() -> dict[str, Held]:
            pipeline.until(lambda: pipeline.supervisor.state.level == "complete")
            stages = {
                spec.name: pipeline.supervisor.pid(spec.name) for spec in pipeline.supervisor.run.stages
            }
            processes = stages | {ITSELF: os.getpid()}
            return {name: held_by(pid, folder) for name, pid in processes.items()}

        pipeline.on_turn = client.poll
        before: dict[str, Held] = {}
        for number in range(n_series):
            figures = pipeline.run(short, f"series-{number}").figures
            assert figures["is_complete"], figures["incomplete"]
            if number == n_warm:
                before = held()
        after = held()
    return {name: now.since(before[name]) for name, now in after.items()}


class Resumed(NamedTuple):
    """What a run came to that took up the scan of one that was killed.

    Attributes
    ----------
    n_recorded : int
        By the run that was killed, at least.
    scan : dict
        The figures of the scan.
    status : int
        With which the second run ended.
    told : str
        What it printed.
    """

    n_recorded: int
    scan: dict[str, Any]
    status: int
    told: str


def killed_and_resumed(
    folder: Path, *ends: object, n_side: int = 12, rate_hz: float = 20.0, kill_at: int = 20
) -> Resumed:
    """Kill a whole run when `kill_at` frames are recorded, and start it again with these arguments."""
    write_scan(folder / "sent.cxi", simulate_scan(Simulation(n_rows=n_side, n_columns=n_side)), "test")
    detector, positions, live = (free_address() for _ in range(3))
    sending = ("replay", folder / "sent.cxi", "--rate", rate_hz)
    addresses = {"detector.address": detector, "positions.address": positions, "live.address": live}
    settings = {**addresses, "detector.bind": "false", "viewer.enabled": "false"}
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    line = ["run", "demo", "--save", folder, *changes]
    with running(folder / "replay.log", *sending, "--address", detector, "--positions", positions):
        with running(folder / "killed.log", *line) as run:
            run.until(lambda: n_recorded(folder) >= kill_at, 120.0)
            os.kill(run.process.pid, signal.SIGKILL)
            run.ends()
        n = n_recorded(folder)
        with running(folder / "resumed.log", *line, *ends, "--json", folder / "run.json") as run:
            status = run.ends(300)
            told = run.output()
    (scan,) = json.loads((folder / "run.json").read_text())["scans"]
    return Resumed(n, scan, status, told)
