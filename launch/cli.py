"""The command line. Each command says what it takes and hands over; what it does is elsewhere.

Imports are inside the commands: `--help` must not wait for PyTorch, and `watch` and `steer` run where the
pipeline is not installed. Users' mistakes end in one line on standard error and exit status 2;
PTYCHOSTREAM_DEBUG=1 shows where they were noticed.
"""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from launch.extras import missing_extra
from stream.wire import addresses

USER_MISTAKE = 2
INTERRUPTED = 130
DEBUG = "PTYCHOSTREAM_DEBUG"
CORES = len(os.sched_getaffinity(0))

app = typer.Typer(
    name="ptychostream",
    help="Live X-ray ptychography: the sample grows on the screen while the scan is moving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigSource = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or name of a recipe.")]
ScanSource = Annotated[
    str,
    typer.Argument(
        metavar="SCAN",
        help="File (CXI, .ptyd, ptychodus product), folder of a recorded scan, or uid in the store.",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        envvar="PTYCHOSTREAM_STORE",
        help="Folder of the store, for a uid; by default that of ./recordings or ./demo.",
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Changes one setting; may be repeated."),
]
EngineDevice = Annotated[
    Literal["auto", "numpy", "compiled", "cupy", "cupy-fused"] | None,
    typer.Option(help="What runs an update; the fastest that is there."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="File for the figures, by name.")]
Save = Annotated[Path | None, typer.Option(help="Folder for scans, results and logs.")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Opens the page.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Insecure = Annotated[
    bool, typer.Option(help="Allows addresses that other machines reach without encryption.")
]


def main() -> None:
    """Runs the command line and leaves with its exit status."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get(DEBUG):
            raise
        extra = missing_extra(error) if isinstance(error, ImportError) else None
        told = f" {sys.argv[1]}: {extra}" if extra else f": {error or type(error).__name__}"
        print(f"ptychostream{told}", file=sys.stderr)
        sys.exit(USER_MISTAKE)


@app.command()
def demo(
    rate: Annotated[float, typer.Option(min=1, help="Frames per second.")] = 100.0,
    frames: Annotated[
        int | None, typer.Option(min=4, help="How many, rounded up to whole rows; 625, or 324 if adaptive.")
    ] = None,
    sample: Annotated[
        str | None, typer.Option(help="Family of simulated samples: siemens; glyphs if adaptive.")
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="The live image steers the scan of a sparse sample.")
    ] = False,
    seed: Seed = 7,
    save: Annotated[Path, typer.Option(help="Folder for scans, results and logs.")] = Path("demo"),
    store: Annotated[bool, typer.Option("--store/--no-store", help="Registers the scan in a store.")] = True,
    json: JsonFile = None,
    browser: Browser = False,
) -> None:
    """Runs a simulated beamline and the whole pipeline, and says how well it did."""
    import bluesky  # noqa: F401 -- where it is missing, its extra is the one to name: it contains the others

    from launch.commands.demo import DemoOptions
    from launch.commands.demo import demo as run_demo

    if adaptive:
        from launch.commands.demo_adaptive import demo_adaptive as run_demo
    n_frames, family = (324, "glyphs") if adaptive else (625, "siemens")
    options = DemoOptions(
        save=save,
        rate_hz=rate,
        n_frames=frames or n_frames,
        sample=sample or family,
        seed=seed,
        stores=store,
    )
    raise typer.Exit(run_demo(options, json_file=json, opens_browser=browser))


@app.command()
def run(
    config: ConfigSource,
    series: Annotated[int | None, typer.Option(min=1, help="Ends after so many series.")] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Longest time to wait for them, seconds.")] = float(
        "inf"
    ),
    save: Save = None,
    json: JsonFile = None,
    browser: Browser = False,
    overrides: Overrides = [],  # noqa: B006 -- typer reads it
) -> None:
    """Runs the pipeline beside a detector until Ctrl-C, or for a number of series."""
    from launch.commands.run import run as run_pipeline
    from launch.config.file import load_config

    if save is not None:
        overrides = [*overrides, f"save={save.absolute()}"]
    settings = load_config(config, overrides=overrides, environ=os.environ)
    raise typer.Exit(
        run_pipeline(settings, n_series=series, timeout_s=timeout, json_file=json, opens_browser=browser)
    )


@app.command()
def check(
    config: ConfigSource,
    timeout: Annotated[float, typer.Option(min=0.01, help="For each address, seconds.")] = 2.0,
    overrides: Overrides = [],  # noqa: B006 -- typer reads it
) -> None:
    """Tries every address, file and device of a configuration; exit status 1 if one fails."""
    from launch.commands.check import check as try_everything
    from launch.config.file import load_config

    findings = try_everything(load_config(config, overrides=overrides, environ=os.environ), timeout)
    for what, result, detail in findings:
        typer.echo(f"{result:<8}{what}: {detail}")
    raise typer.Exit(any(result not in ("OK", "WARNING") for _, result, _ in findings))


@app.command()
def replay(
    scan: ScanSource,
    rate: Annotated[float, typer.Option(min=0, help="Frames per second; 0 for as fast as possible.")] = 100.0,
    address: Annotated[str, typer.Option(help="Where frames go.")] = addresses.DETECTOR,
    bind: Annotated[
        bool, typer.Option("--bind/--connect", help="Whether this side owns the address.")
    ] = True,
    pattern: Annotated[Literal["PUSH", "PUB"], typer.Option(help="How frames are sent.")] = "PUSH",
    positions: Annotated[
        str, typer.Option(help="Where documents with the positions go, if somebody listens.")
    ] = addresses.POSITIONS,
    with_positions: Annotated[
        bool, typer.Option("--with-positions/--no-positions", help="Whether positions are sent as well.")
    ] = True,
    unit: Annotated[
        Literal["m", "mm", "um", "nm"], typer.Option(help="Of the positions sent; what the pipeline expects.")
    ] = "um",
    frames: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    store: Store = None,
    insecure: Insecure = False,
) -> None:
    """Plays a recorded scan as a detector would send it."""
    from launch.commands.replay import ReplayOptions
    from launch.commands.replay import replay as play
    from launch.offline.recorded import open_recorded
    from stream.wire.sockets import Endpoint

    options = ReplayOptions(
        endpoint=Endpoint(address=address, bind=bind, insecure=insecure),
        pattern=pattern,
        rate_hz=rate,
        n_frames=frames,
        positions=Endpoint(address=positions, insecure=insecure) if with_positions else None,
        unit=unit,
    )
    with open_recorded(scan, store) as recorded:
        typer.echo(f"{play(recorded, options)} frames sent to {address}")


@app.command()
def reconstruct(
    scan: ScanSource,
    output: Annotated[Path | None, typer.Option(help="CXI file; picture and report lie beside it.")] = None,
    algorithm: Annotated[
        Literal["epie", "rpie", "dm", "raar"] | None,
        typer.Option(help="Engine; dm and raar are references that keep all exit waves in memory."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="Visits per frame.")] = None,
    modes: Annotated[int | None, typer.Option(min=1, help="Incoherent modes of the probe.")] = None,
    probe: Annotated[Literal["file", "data"] | None, typer.Option(help="Where the probe comes from.")] = None,
    subpixel: Annotated[
        bool, typer.Option("--subpixel", help="Positions count to fractions of a pixel; twice the work.")
    ] = False,
    positions: Annotated[bool, typer.Option("--positions", help="Refines positions as well.")] = False,
    poisson: Annotated[bool, typer.Option("--poisson", help="For patterns of few photons.")] = False,
    half: Annotated[Literal["0", "1", "all"], typer.Option(help="Even frames, odd frames or all.")] = "all",
    frc: Annotated[
        bool, typer.Option("--frc", help="Also correlates the two halves; twice the work.")
    ] = False,
    device: EngineDevice = None,
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.", show_default="all")] = CORES,
    tiles: Annotated[
        int | None,
        typer.Option(min=1, help="Parts of the scan, each refined by a process on its own GPU or cores."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the order of visits.")] = None,
    store: Store = None,
    json: JsonFile = None,
) -> None:
    """Reconstructs a recorded scan with the operators of the live pipeline.

    What is not given is as in the run that recorded the scan, for a file as in a run that says nothing of it.
    """
    from launch.commands.reconstruct import reconstruct_file
    from launch.offline.task import options_for
    from operators.engine.projections import ProjectionConfig

    projections = None
    if algorithm == "dm" or algorithm == "raar":
        projections, algorithm = ProjectionConfig(algorithm=algorithm), None
    choose = partial(
        options_for,
        refiner={
            "algorithm": algorithm,
            "seed": seed,
            "subpixel": subpixel or None,
            "refines_positions": positions or None,
            "noise": "poisson" if poisson else None,
        },
        projections=projections,
        epochs=epochs,
        n_modes=modes,
        probe=probe,
        every=1 if half == "all" else 2,
        offset=0 if half == "all" else int(half),
        device=device,
        threads=threads,
        tiles=tiles,
    )
    reconstruct_file(scan, choose, store=store, output=output, correlates_halves=frc, json_file=json)


@app.command()
def simulate(
    output: Annotated[Path, typer.Argument(help="CXI file to write; the truth lies in its group `truth`.")],
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with all options, also effects of beam, stage and detector."),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Rows of the raster.")] = None,
    columns: Annotated[int | None, typer.Option(min=2, help="Columns of the raster.")] = None,
    step: Annotated[float | None, typer.Option(help="Distance of positions, object pixels.")] = None,
    photons: Annotated[float | None, typer.Option(help="Mean photons per frame.")] = None,
    sample: Annotated[str | None, typer.Option(help="Family of simulated samples.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.")] = None,
) -> None:
    """Writes a simulated scan to a CXI file; by default 25 x 25 positions with the demo's probe."""
    from launch.beamline.simulation import Simulation, simulate_scan
    from launch.commands.simulate import read_simulation, write_scan

    given: dict[str, Any] = {
        "n_rows": rows,
        "n_columns": columns,
        "step_px": step,
        "photons_per_frame": photons,
    }
    given |= {"family": sample, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    simulation = replace(read_simulation(config) if config else Simulation(), **given)
    scan = simulate_scan(simulation)
    write_scan(output, scan, f"simulated {simulation.family}, seed {simulation.seed}")
    typer.echo(f"{len(scan.frames)} frames in {output}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as launch/recipes/train-demo.yaml.")],
    output: Annotated[Path, typer.Option(help="Folder for weights, log and checkpoints.")] = Path("weights"),
    device: Annotated[str, typer.Option(help="Where PyTorch works: cpu, cuda.")] = "cpu",
    from_scan: Annotated[
        str | None,
        typer.Option(metavar="SCAN", help="Recorded scan to match: refined first, then learned from."),
    ] = None,
) -> None:
    """Trains a network on simulated scans; goes on where an interrupted training stopped."""
    from launch.training.recipe import read_recipe
    from launch.training.train import progress_bar
    from launch.training.train import train as train_network

    settings = read_recipe(recipe)
    with progress_bar(settings) as show:
        card = train_network(settings, output, device=device, from_scan=from_scan, on_report=show)
    if card is None:  # another process of `torchrun` has it
        return
    for name, value in card.metrics.items():
        typer.echo(f"{name:<40}{value:.4g}")
    typer.echo(f"{output / settings.name}.safetensors, version {card.model_id}")


@app.command()
def watch(
    address: Annotated[str, typer.Argument(help="Where the pipeline publishes.")] = addresses.LIVE,
    insecure: Insecure = False,
    key: Annotated[Path | None, typer.Option(help="Own secret key file.")] = None,
    peers: Annotated[Path | None, typer.Option(help="Public key file of the pipeline.")] = None,
) -> None:
    """Follows a live reconstruction in the terminal."""
    from launch.commands.watch import watch as follow

    raise typer.Exit(follow(address, insecure=insecure, key=key, peers=peers))


@app.command()
def steer(
    address: Annotated[str, typer.Argument(help="Where the policy listens.")] = addresses.POLICY,
    action: Annotated[str, typer.Argument(help="status, hold, resume, stop or region.")] = "status",
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[Y0 Y1 X0 X1|clear]", help="Of a region, motor positions.")
    ] = None,
    insecure: Insecure = False,
    key: Annotated[Path | None, typer.Option(help="Own secret key file.")] = None,
    peers: Annotated[Path | None, typer.Option(help="Public key file of the policy.")] = None,
) -> None:
    """Shows how a steered scan stands; holds, resumes or stops it, or restricts it to a region."""
    from launch.commands.steer import steer as say
    from stream.client import SteeringClient

    client = SteeringClient(address, insecure=insecure, key=key, peers=peers)
    raise typer.Exit(say(client, action, values or ()))


@app.command("replay-decisions")
def replay_decisions(scan: Annotated[Path, typer.Argument(help="Folder of a recorded scan.")]) -> None:
    """Makes the decisions of a steered scan again; exit status 0 only if every bit is the same."""
    from launch.commands.replay_decisions import replay_decisions as replay_all

    raise typer.Exit(replay_all(scan))


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(help="Where the two key files go.")],
    name: Annotated[str, typer.Argument(help="Whose keys they are.")],
) -> None:
    """Creates a CURVE key pair: NAME.key to give away, NAME.key_secret to keep."""
    from stream.wire.sockets import create_keys

    secret = create_keys(folder, name)
    typer.echo(f"secret key   {secret}\npublic key   {secret.with_suffix('.key')}")
