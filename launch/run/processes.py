"""One stage's process as its supervisor sees it: start, death, restart with growing pauses, and the end.

No sockets.
"""

import logging
import os
import site
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from launch.child_process import REFUSAL, REFUSED, describe_status, process_state
from launch.config.run_file import ResolvedRun, StageSpec
from launch.fork_server import ForkServer, Process, Start, spawn
from stream.record.run_state import ProcessState
from stream.stages.pulse import PulseReader
from stream.wire.messages import Progress, StageLevel

PAGE = "viewer"
MAX_DEATHS = 5
DEATHS_WINDOW_S = 60.0
FIRST_PAUSE_S = 0.1
MAX_SAME = 3  # deaths of the same complaint: it will not go away
DEAF_S = 5.0  # a process tells how far it is several times a second, unless its work keeps it
STILL_S = 0.1  # between two looks of a source at its sockets, of which it takes fifty a second
ASLEEP_S = 0.05  # longer than a source rests: one that had no core may have gone to rest just now
BUSY_S = 1.0  # the same while it is at work, or stood still a moment ago
MOMENT_S = 10.0
_STANDS = {
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "D": "waiting for the disk",
    "S": "waiting for another process",
    "R": "at one piece of work",
}

MODULE = "launch.run.stage_process"
_TORCH = "stream.stages.inference.worker"  # brings it, which takes longer to load than all the rest
_IMPORTS = {  # of builders in `launch.run.stages`, where they are much
    "subscriber": ("stream.stages.ingest.subscriber",),
    "positions": ("stream.stages.positions",),
    "probe": ("stream.stages.probe",),
    "inference": (_TORCH,),
    "inference_worker": (_TORCH,),
    "refinement": ("stream.stages.refinement.worker", "operators.engine.compiled.kernels"),
    "finetune": (_TORCH, "launch.training.finetune"),
    "stitcher": ("stream.stages.stitching.worker",),
    "finisher": ("launch.results.finisher",),
    "recorder": ("launch.results.recorder",),
    "viewer": ("launch.page.service",),
    "policy": ("launch.run.policy_process",),
}
_SOURCE_ROOT = Path(__file__).resolve().parents[2]


class RunFailedError(RuntimeError):
    """A run that cannot go on, and why."""


class StageProcess:
    """The process of one stage, started anew when it dies.

    Parameters
    ----------
    spec : StageSpec
    run : ResolvedRun
        Its written file is what the process reads.
    clock : callable
        Monotonic seconds.
    start : callable
        Starts a process; by default one that has to load everything (`launch.fork_server`).
    """

    def __init__(
        self, spec: StageSpec, run: ResolvedRun, clock: Callable[[], float], start: Start = spawn
    ) -> None:
        self.spec, self.name = spec, spec.name
        self.log_file, self.modules = run.logs / f"{spec.name}.log", modules_of(spec, run)
        self.is_ready = False
        self.is_stopping = False
        self.identity = b""  # of its socket, once it has greeted
        self.complaint = ""  # the last error it reported
        self._complained, self._n_same = "", 0  # that of the process before, and how many had it
        self.progress: Progress | None = None
        self.n_restarts = 0
        self.heard_at = float("-inf")  # the last time it said anything
        self._death = ""  # how it ended the last time
        self._run_file, self._clock, self._start = run.file, clock, start
        self._process: Process | None = None
        self._log_start = 0
        self.was_ready = False
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS + 1)
        self._start_at: float | None = None
        self._pulse = PulseReader(run.rendezvous, spec.name) if spec.is_source else None
        self._stands = ""  # why it does not move
        self._ready_at = 0.0
        self._asleep = 0.0, 0.0  # after which beat it was first seen asleep, and when
        self._stood_at = 0.0  # its last move before that
        self._moves_at = float("-inf")  # since when it moves again

    @property
    def pid(self) -> int:
        """Process id, 0 when there is none."""
        return self._process.pid if self._process else 0

    @property
    def is_started(self) -> bool:
        """Whether it was ever started."""
        return self._process is not None

    @property
    def is_running(self) -> bool:
        """Whether there is a live process."""
        return self._process is not None and self._process.poll() is None

    @property
    def trouble(self) -> tuple[str, StageLevel] | None:
        """What keeps the process from its work, None while nothing is seen to."""
        if self._process is None:
            return "not started yet", "busy"
        if self._start_at is not None or (self._death and not self.is_ready and not self.is_stopping):
            return f"restarting: {self._death}", "warning"
        if self.is_stopping and self._death and not self.is_ready:
            return f"given up: {self._death}", "error"
        if not self.is_ready and not self.is_stopping:
            return "starting", "busy"
        if self._stands:
            still_s = self._clock() - self._stood_at
            return f"does not move for {still_s:.1f} s, {self._stands}: what comes waits", "warning"
        return None

    @property
    def is_given_up(self) -> bool:
        """Whether it died too often and the run goes on without it."""
        return self.is_stopping and bool(self._death) and not self.is_running and self._start_at is None

    @property
    def scan(self) -> str:
        """Name of the scan that it was last heard to be on, "" if none."""
        return self.progress.scan if self.progress else ""

    @property
    def silence_s(self) -> float:
        """Seconds since it was last heard, 0 while it is not expected to say anything."""
        return self._clock() - self.heard_at if self.is_ready and not self.is_stopping else 0.0

    def seen(self) -> ProcessState:
        """Returns the process as those beside the run are told of it."""
        age_s = self._clock() - self.heard_at
        return ProcessState(
            name=self.name,
            pid=self.pid if self.is_running else 0,
            is_running=self.is_running,
            n_restarts=self.n_restarts,
            heard_s=time.time() - age_s if age_s < float("inf") else 0.0,
            counts=self.progress.counts if self.progress else {},
        )

    def start(self) -> None:
        """Starts the process; what it prints goes to its log file."""
        self._start_at = None
        self.is_ready, self.identity, self.complaint = False, b"", ""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        arguments = (self.name, str(self._run_file), "--parent", str(os.getpid()))
        with self.log_file.open("ab") as output:
            self._log_start = output.tell()
            self._process = self._start(MODULE, arguments, environment_of(self.spec), output)

    def ready(self) -> None:
        """Takes note that the stage has everything it needs."""
        self.is_ready = self.was_ready = True
        self.heard_at = self._ready_at = self._clock()

    def look_after(self) -> str:
        """Starts the process again if it died and its pause is over; returns what there is to tell, or "".

        Raises
        ------
        RunFailedError
            If the stage refuses to run, never got ready, or dies too often; it is not started again.
        """
        if self._start_at is not None:
            if self._clock() >= self._start_at:
                self.n_restarts += 1
                self.start()
        elif self._process is not None and not self.is_stopping:
            status = self._process.poll()
            return "" if status is None else self._bury(status)
        return ""

    def feel_pulse(self) -> tuple[int, str] | None:
        """Returns what there is to tell of a source that stops to move or moves again, with its level."""
        before, self._stands = self._stands, self._standstill()
        if self._stands and not before:
            self._stood_at = self._moved_at
            return logging.WARNING, f"does not move, {self._stands}: what comes waits"
        if before and not self._stands and self.is_ready and not self.is_stopping:
            self._moves_at = self._clock()
            still_s = self._moves_at - self._stood_at
            return logging.INFO, f"moves again after {still_s:.1f} s"
        return None

    @property
    def _moved_at(self) -> float:
        """When it last went round, or was ready to."""
        return max(self._pulse.beat_at if self._pulse else 0.0, self._ready_at)

    def _standstill(self) -> str:
        """Return why the process does not move, "" while it does or nobody expects it to."""
        if self._pulse is None or not self.is_ready or self.is_stopping:
            return ""
        now, beat_at = self._clock(), self._moved_at
        if now - beat_at < STILL_S:
            return ""
        does = process_state(self.pid)
        # It went round while this process had no core, or is dead, of which `look_after` tells.
        if self._moved_at != beat_at or does in ("Z", "X"):
            return ""
        if does == "S" and self._asleep[0] != beat_at:
            self._asleep = beat_at, now
        if does == "S" and now - self._asleep[1] < ASLEEP_S:
            return ""
        # One that works, or waits for a core, is slow and not frozen; a disk that is slow is told of once.
        is_patient = does in ("R", "") or now - self._moves_at < MOMENT_S
        if is_patient and now - beat_at < BUSY_S:
            return ""
        return _STANDS.get(does, "for no reason that is seen")

    def _bury(self, status: int) -> str:
        now = self._clock()
        self._deaths.append(now)
        self.is_ready, self.identity = False, b""
        self._death = describe_status(status)
        self.is_stopping = True  # unless there is a reason to start it again
        recent = [death for death in self._deaths if now - death <= DEATHS_WINDOW_S]
        more = f"; {self.log_file} has more"
        if status == REFUSED:
            raise RunFailedError(f"stage {self.name} {REFUSAL}{self.last_words()}")
        if not self.was_ready:
            raise RunFailedError(f"stage {self.name} {REFUSAL}{self.last_words()}{more}")
        self._n_same = self._n_same + 1 if self.complaint and self.complaint == self._complained else 1
        self._complained = self.complaint
        if self._n_same >= MAX_SAME:
            raise RunFailedError(
                f"stage {self.name} failed {self._n_same} times alike: {self.complaint}{more}"
            )
        if len(recent) > MAX_DEATHS:
            raise RunFailedError(
                f"stage {self.name} died {len(recent)} times in {DEATHS_WINDOW_S:g} s, the last time "
                f"{self._death}: {self.last_words()}{more}"
            )
        pause_s = FIRST_PAUSE_S * 2 ** (len(recent) - 1)
        self._start_at, self.is_stopping = now + pause_s, False
        return f"{describe_status(status)}; starts again in {pause_s:.1f} s"

    def last_words(self) -> str:
        """Returns why this process refused to run, or what it complained of, or its last line in the log."""
        with self.log_file.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._log_start:  # it has begun anew
                self._log_start = 0
            file.seek(self._log_start)
            logged = file.read().decode(errors="replace").rstrip()
        _, is_refusal, reason = f"\n{logged}".rpartition(f"\n{REFUSAL}")
        if is_refusal:
            return reason
        return self.complaint or logged.rpartition("\n")[2] or "it logged nothing"

    def complains(self, text: str) -> bool:
        """Takes note of an error that it reports; says whether the process before it said something else."""
        self.complaint = text
        return text != self._complained

    def kill(self) -> None:
        """Ends the process, which has been asked politely (`Stop`), and waits until it is gone."""
        self.is_stopping, self._start_at = True, None
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()


def can_do_without(process: StageProcess, others: Iterable[StageProcess]) -> bool:
    """Says whether a run goes on without `process`, which has died too often; one never ready it needs.

    Of several that share the frames of a stage one has to be left among `others`.
    """
    spec = process.spec
    if not process.was_ready:
        return False
    if spec.shares:
        return any(it.spec.shares == spec.shares and not it.is_given_up for it in others if it is not process)
    return not spec.is_vital


def modules_of(spec: StageSpec, run: ResolvedRun) -> tuple[str, ...]:
    """Returns what the process of a stage imports before it works, or later what the run loads anyway."""
    builder = spec.builder.partition(":")[2]
    closes_with = (_TORCH,) if builder == "finisher" and run.config.network.weights else ()
    return MODULE, "launch.run.stages", *_IMPORTS.get(builder, ()), *closes_with


def fork_server_of(run: ResolvedRun) -> ForkServer:
    """Returns what starts the processes of a run."""
    # A person waits for the page; what loads long comes last.
    page_first = sorted(run.stages, key=lambda spec: spec.name != PAGE)
    batches = sorted((modules_of(spec, run) for spec in page_first), key=lambda batch: _TORCH in batch)
    usual = StageSpec(name="", builder="")
    return ForkServer(batches, environment_of(usual), run.folder / "fork_server.log")


def environment_of(spec: StageSpec) -> dict[str, str]:
    """Returns the environment of a stage's process."""
    environment = dict(os.environ)
    if spec.device:
        environment["CUDA_VISIBLE_DEVICES"] = _visible(spec.device, environment.get("CUDA_VISIBLE_DEVICES"))
    for library in ("OMP", "OPENBLAS", "MKL"):
        environment[f"{library}_NUM_THREADS"] = str(spec.threads)
    # There are none, and looking for them through all that is installed takes each stage 50 ms.
    environment.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if str(_SOURCE_ROOT) not in site.getsitepackages():  # run from a checkout that is not installed
        paths = [str(_SOURCE_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _visible(device: str, visible: str | None) -> str:
    """Return what CUDA is to see so that a process has this device alone, of those `visible` here."""
    _, _, index = device.partition(":")
    if not index:
        return ""
    if visible is None:
        return index
    return dict(enumerate(visible.split(","))).get(int(index), "")
