"""The commands of a scan that goes on: running the pipeline, watching it, steering it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from launch.cli.app import (
    Browser,
    ConfigSource,
    Insecure,
    JsonFile,
    LogJson,
    OnCluster,
    Overrides,
    Overwrite,
    Save,
    Seed,
    app,
    at_home,
    finite,
    known,
)
from launch.cli.completion import actions, families
from launch.signals import heard_or_not
from stream.wire import addresses

if TYPE_CHECKING:
    from rich.console import Console

    from launch.config.config import Config


@app.command()
@heard_or_not()
def demo(
    rate: Annotated[float, typer.Option(min=1, callback=finite, help="Frames per second.")] = 100.0,
    frames: Annotated[
        int | None, typer.Option(min=4, help="How many, rounded up to whole rows; 625, or 324 if adaptive.")
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            help="Family of simulated samples: siemens; glyphs if adaptive.",
            autocompletion=families,
        ),
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="The live image steers the scan of a sparse sample.")
    ] = False,
    seed: Seed = 7,
    save: Annotated[Path, typer.Option(callback=at_home, help="Folder for scans, results and logs.")] = Path(
        "demo"
    ),
    store: Annotated[bool, typer.Option("--store/--no-store", help="Registers the scan in a store.")] = True,
    json: JsonFile = None,
    log_json: LogJson = False,
    overwrite: Overwrite = False,
    browser: Browser = False,
) -> None:
    """Runs a simulated beamline and the whole pipeline, and says how well it did."""
    import bluesky  # noqa: F401 -- where it is missing, its extra is the one to name: it contains the others

    from launch.commands.demo import DemoOptions
    from launch.commands.demo import demo as run_demo
    from launch.outputs import check_outputs

    if adaptive:
        from launch.commands.demo_adaptive import demo_adaptive as run_demo
    if sample is not None:
        from launch.training.samples import check_family

        check_family(sample)
    check_outputs({"--json": json}, overwrite=overwrite)
    n_frames, family = (324, "glyphs") if adaptive else (625, "siemens")
    options = DemoOptions(
        save=save,
        rate_hz=rate,
        n_frames=frames or n_frames,
        sample=sample or family,
        seed=seed,
        stores=store,
    )
    raise typer.Exit(run_demo(options, json_file=json, opens_browser=browser, console=_console(log_json)))


@app.command()
@heard_or_not()
def run(
    config: ConfigSource,
    series: Annotated[int | None, typer.Option(min=1, help="Ends after so many series.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finishes what an earlier run has left in its folder, and ends.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=0, callback=known, help="Longest time to wait for them, seconds.", show_default="no limit"
        ),
    ] = float("inf"),
    save: Save = None,
    json: JsonFile = None,
    log_json: LogJson = False,
    overwrite: Overwrite = False,
    browser: Browser = False,
    on: OnCluster = None,
    overrides: Overrides = [],  # noqa: B006 -- typer reads it
) -> None:
    """Runs the pipeline beside a detector until Ctrl-C, or for a number of series."""
    from launch.commands.run import run as run_pipeline
    from launch.config.file import files_read, override
    from launch.outputs import check_outputs

    if resume and series is not None:
        raise typer.BadParameter("--resume ends by itself: leave out --series")
    if on is not None:
        overrides = [*overrides, override("remote.cluster", on), "remote.enabled=true"]
    settings = _settings(config, save, overrides)
    check_outputs({"--json": json}, inputs=files_read(config, settings), overwrite=overwrite)
    raise typer.Exit(
        run_pipeline(
            settings,
            n_series=series,
            resumes=resume,
            timeout_s=timeout,
            json_file=json,
            opens_browser=browser,
            console=_console(log_json),
        )
    )


def _console(log_json: bool) -> "Console | None":
    """Return where lines of JSON go, None where people read."""
    from launch.logs import JsonConsole

    return JsonConsole(sys.stdout) if log_json else None


def _settings(config: str, save: Path | None, overrides: list[str]) -> "Config":
    from launch.config.file import load_config, override

    if save is not None:
        overrides = [*overrides, override("save", save.absolute())]
    return load_config(config, overrides=overrides, environ=os.environ)


@app.command()
def check(
    config: ConfigSource,
    timeout: Annotated[
        float, typer.Option(min=0.01, callback=known, help="To wait for each address, seconds.")
    ] = 2.0,
    receive: Annotated[
        bool,
        typer.Option("--receive", help="Takes a message of a detector that pushes; a scan would lack it."),
    ] = False,
    save: Save = None,
    overrides: Overrides = [],  # noqa: B006 -- typer reads it
) -> None:
    """Tries everything in a configuration before the beam is on; exit status 1 if a run could not work."""
    from shutil import get_terminal_size

    from launch.commands.check import check as try_everything
    from launch.commands.check import table

    is_good = True
    for finding in try_everything(_settings(config, save, overrides), timeout, receives=receive):
        typer.echo(table(finding, get_terminal_size().columns))
        is_good &= not finding.is_failure
    raise typer.Exit(not is_good)


@app.command()
def watch(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Where the pipeline publishes.")
    ] = addresses.LIVE,
    insecure: Insecure = False,
    key: Annotated[Path | None, typer.Option(callback=at_home, help="Own secret key file.")] = None,
    peers: Annotated[
        Path | None, typer.Option(callback=at_home, help="Public key file of the pipeline.")
    ] = None,
) -> None:
    """Follows a live reconstruction in the terminal."""
    from launch.commands.watch import watch as follow

    raise typer.Exit(follow(address, insecure=insecure, key=key, peers=peers))


@app.command()
def steer(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Where the policy listens.")
    ] = addresses.POLICY,
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION", help="status, hold, resume, stop or region.", autocompletion=actions
        ),
    ] = "status",
    values: Annotated[
        list[str] | None, typer.Argument(metavar="Y0 Y1 X0 X1|clear", help="Of a region, motor positions.")
    ] = None,
    insecure: Insecure = False,
    key: Annotated[Path | None, typer.Option(callback=at_home, help="Own secret key file.")] = None,
    peers: Annotated[
        Path | None, typer.Option(callback=at_home, help="Public key file of the policy.")
    ] = None,
) -> None:
    """Shows how a steered scan stands; holds, resumes or stops it, or restricts it to a region."""
    from launch.commands.steer import ACTIONS
    from launch.commands.steer import steer as say
    from stream.client import SteeringClient

    if address in ACTIONS:
        raise typer.BadParameter(f"the address comes before it: steer {addresses.POLICY} {address}")
    client = SteeringClient(address, insecure=insecure, key=key, peers=peers)
    raise typer.Exit(say(client, action, values or ()))


@app.command()
@heard_or_not()
def stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which: inference or refinement.")],
    of: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="ADDRESS",
            help="`remote.address` of the run, or `remote.refinement_address`, as seen from here.",
        ),
    ],
    key: Annotated[Path | None, typer.Option(callback=at_home, help="Own secret key file.")] = None,
    peers: Annotated[Path | None, typer.Option(callback=at_home, help="Public key file of the run.")] = None,
    insecure: Insecure = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the work is done.", show_default=True)
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Cores it may use.")] = 1,
    cache: Annotated[
        Path | None, typer.Option(callback=at_home, file_okay=False, help="Folder that keeps weights.")
    ] = None,
    patience: Annotated[
        float,
        typer.Option(
            min=0,
            callback=known,
            help="Ends when no run has answered for so long, seconds.",
            show_default="no limit",
        ),
    ] = float("inf"),
) -> None:
    """Does a stage of a run that is on another machine, until Ctrl-C."""
    from launch.commands.stage import stage as work
    from stream.wire.handshake import client_endpoint

    run = client_endpoint(of, insecure=insecure, key=key, peers=peers)
    raise typer.Exit(work(name, run, device=device, threads=threads, patience_s=patience, cache=cache))


@app.command("replay-decisions")
def replay_decisions(
    scan: Annotated[
        Path, typer.Argument(metavar="SCAN", callback=at_home, help="Folder of a recorded scan.")
    ],
) -> None:
    """Makes the decisions of a steered scan again; exit status 0 only if every bit is the same."""
    from launch.commands.replay_decisions import replay_decisions as replay_all

    raise typer.Exit(replay_all(scan))


@app.command()
def keys(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", callback=at_home, help="Where the two key files go.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose keys they are.")],
    overwrite: Overwrite = False,
) -> None:
    """Creates a CURVE key pair: NAME.key to give away, NAME.key_secret to keep."""
    from stream.wire.keys import create_keys

    secret = create_keys(folder, name, overwrite=overwrite)
    typer.echo(f"secret key   {secret}\npublic key   {secret.with_suffix('.key')}")
