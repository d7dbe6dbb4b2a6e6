"""A run as its processes see it: the configuration, where everything lies, and which stages there are."""

import re
import secrets
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from launch.config.config import Config, config_hash
from stream.atomic import replacing
from stream.files.endpoint_section import EndpointSection
from stream.remote.placed import door_of_placed
from stream.stages.config import RemoteConfig
from stream.stages.inputs import Optics
from stream.stages.link import StageContext
from stream.wire.sockets import Endpoint

PROBE_FILE = "probe.npy"  # in the run's folder
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StageSpec(BaseModel):
    """One process of a run.

    Attributes
    ----------
    name : str
        Of the stage, and of its ledger, log and bell.
    builder : str
        "module:function" that makes the stage from the `ResolvedRun`; tests bring their own.
    is_source : bool
        Is stopped first: what the builder makes listens to the world outside.
    closes : bool
        Marks a scan closed when it is done with it: the end of the run waits for that.
    is_vital : bool
        The run fails when it cannot be kept alive; otherwise the run goes on without it.
    after : tuple of str
        Stages whose addresses it needs: started when they are ready.
    nice : int
        Added to the priority number, so that recording never waits for refining.
    nice_when_ready : int
        Added once the stage is built: the start of a run waits for that.
    threads : int
        Of the numerical libraries.
    shares : str
        The stage whose frames it shares with others of its kind: the run goes on while one of them is left.
    device : str
        That its network runs on, "cpu" or "cuda:N", "" for that of the configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    builder: str
    is_source: bool = False
    closes: bool = True
    is_vital: bool = True
    after: tuple[str, ...] = ()
    nice: int = 0
    nice_when_ready: int = 0
    threads: int = 1
    shares: str = ""
    device: str = ""


class ResolvedRun(BaseModel):
    """Everything a process needs to know to take part in a run.

    Attributes
    ----------
    run_id : str
    config : Config
    folder : Path
        Of this run's own files, inside `config.save`.
    rendezvous : Path
        Short-lived folder of the run's local sockets.
    stages : tuple of StageSpec
        In the order in which they are stopped.
    addresses : dict
        By stage, where it can really be reached; a restarted stage takes the same address again.
    resumes : bool
        Whether it is there to finish what an earlier run has left, and ends then.
    boot : str
        Which start of the computer it goes on in: after another one, what was not on the disk is gone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    config: Config
    folder: Path
    rendezvous: Path = Path()
    stages: tuple[StageSpec, ...]
    addresses: dict[str, str] = {}
    resumes: bool = False
    boot: str = ""

    @property
    def scans(self) -> Path:
        """Folder of scans."""
        return self.config.save / "scans"

    @property
    def logs(self) -> Path:
        """Folder of the logs of runs and stages."""
        return self.config.save / "logs"

    @property
    def log_file(self) -> Path:
        """What happened in the run, for people."""
        return self.logs / f"{self.run_id}.log"

    @property
    def file(self) -> Path:
        """Where the run is written down."""
        return self.folder / "run.json"

    def context(self) -> StageContext:
        """Returns what the stages are told about their run."""
        return StageContext(
            scans=self.scans,
            rendezvous=self.rendezvous,
            run_id=self.run_id,
            config_hash=config_hash(self.config),
        )

    def stage(self, name: str) -> StageSpec:
        """Returns the stage called `name`.

        Raises
        ------
        ValueError
            If the run has no such stage.
        """
        for spec in self.stages:
            if spec.name == name:
                return spec
        names = ", ".join(spec.name for spec in self.stages)
        raise ValueError(f"run {self.run_id} has no stage {name!r}; it has {names}")

    def on(self, device: str) -> "ResolvedRun":
        """Returns the run with its network on `device` of a `StageSpec`, which its process sees alone."""
        if not device:
            return self
        network = self.config.network.changed(device=device.partition(":")[0])
        return self.model_copy(update={"config": self.config.model_copy(update={"network": network})})

    def write(self) -> None:
        """Writes the run down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as temporary:
            temporary.write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "ResolvedRun":
        """Returns the run that was written to `file`."""
        return cls.model_validate_json(file.read_bytes())

    @classmethod
    def of_folder(cls, folder: Path) -> "ResolvedRun":
        """Returns an earlier run, written down in `folder`, wherever that has been moved to."""
        run = cls.read(folder / "run.json")
        config = run.config.model_copy(update={"save": folder.parent.parent})
        return run.model_copy(update={"folder": folder, "config": config})


def new_run(config: Config, stages: tuple[StageSpec, ...]) -> ResolvedRun:
    """Returns a run of `config` with an id of its own: when it began, and a few random digits."""
    run_id = f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}"
    folder = config.save / "runs" / run_id
    return ResolvedRun(run_id=run_id, config=config, folder=folder, stages=stages, boot=_boot_id())


def optics(run: ResolvedRun) -> Optics:
    """Returns what the stages know about instrument and frames."""
    probe = run.folder / PROBE_FILE
    is_known = probe.exists() and not run.config.finds_probe
    return Optics(run.config.geometry, probe if is_known else None)


def client_of(run: ResolvedRun, stage: str, section: EndpointSection) -> Endpoint:
    """Returns how another process of the run reaches the door of `stage`: the run has one pair of keys."""
    return Endpoint(
        address=reachable(run.addresses.get(stage, section.address)),
        insecure=section.insecure,
        key=section.key,
        peers=section.key,  # the file of a secret key has its public half, too
    )


def work_door(run: ResolvedRun, section: RemoteConfig) -> Endpoint:
    """Returns where workers on other machines come in, also those that the run places there itself."""
    door = section.endpoint()
    return door_of_placed(door, run.rendezvous) if run.config.remote.cluster else door


def reachable(address: str) -> str:
    """Returns a bound address as a client on this machine connects to it."""
    return re.sub(r"^tcp://(0\.0\.0\.0|\*):", "tcp://127.0.0.1:", address)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # a system that does not say
        return ""
