"""The commands of scans that are recorded or simulated."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from launch.cli.app import CORES, EngineDevice, Insecure, JsonFile, Overwrite, Sample, ScanSource, Store, app
from launch.signals import heard_or_not
from stream.wire import addresses

# The options of `simulate` and the fields of `Simulation` that they set.
SIMULATED = {
    "rows": "n_rows",
    "columns": "n_columns",
    "step": "step_px",
    "photons": "photons_per_frame",
    "sample": "family",
    "seed": "seed",
}


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
    timeout: Annotated[
        float, typer.Option(min=0, help="Longest time to wait until somebody takes frames, seconds.")
    ] = 60.0,
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
        timeout_s=timeout,
    )
    with open_recorded(scan, store) as recorded:
        played = play(recorded, options)
    sent = f"{played.n_sent} of {played.n_frames} frames sent to {address}"
    typer.echo(f"{sent}: {played.reason}" if played.reason else sent, err=bool(played.reason))
    raise typer.Exit(played.status)


@app.command()
@heard_or_not()
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
        bool | None,
        typer.Option(
            "--frc/--no-frc",
            help="Also reconstructs two halves: resolution is how far they agree. Twice the work.",
            show_default="if all took less than a minute",
        ),
    ] = None,
    product: Annotated[
        Path | None, typer.Option(help="Gets the result once more, as a product of ptychodus (.h5).")
    ] = None,
    device: EngineDevice = None,
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.", show_default="all")] = CORES,
    tiles: Annotated[
        int | None,
        typer.Option(min=1, help="Parts of the scan, each refined by a process on its own GPU or cores."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the order of visits.")] = None,
    store: Store = None,
    json: JsonFile = None,
    overwrite: Overwrite = False,
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
    reconstruct_file(
        scan,
        choose,
        store=store,
        output=output,
        product=product,
        correlates_halves=frc,
        json_file=json,
        overwrite=overwrite,
    )


class _Simulate(TyperCommand):
    """Shows in its help what a simulation is like where nothing is given."""

    @staticmethod
    def defaults() -> dict[str, Any]:
        """Returns by option what `Simulation` has, which is loaded only now."""
        from launch.beamline.simulation import Simulation

        simulation = Simulation()
        return {name: getattr(simulation, field) for name, field in SIMULATED.items()}

    def format_help(self, *arguments: Any) -> None:
        """Writes the help with these defaults."""
        with suppress(ImportError):  # the command will say which extra it needs
            defaults = self.defaults()
            for parameter in self.params:
                parameter.default = defaults.get(parameter.name or "", parameter.default)
        super().format_help(*arguments)


@app.command(cls=_Simulate)
def simulate(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="CXI file to write; the truth lies in its group `truth`.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with all options, also effects of beam, stage and detector."),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Rows of the raster.")] = None,
    columns: Annotated[int | None, typer.Option(min=2, help="Columns of the raster.")] = None,
    step: Annotated[float | None, typer.Option(help="Distance of positions, object pixels.")] = None,
    photons: Annotated[float | None, typer.Option(help="Mean photons per frame.")] = None,
    sample: Sample = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Writes a simulated scan to a CXI file, with the demo's probe."""
    from launch.beamline.simulation import Simulation, simulate_scan
    from launch.commands.simulate import read_simulation, write_scan
    from launch.outputs import check_outputs

    given: dict[str, Any] = {"rows": rows, "columns": columns, "step": step, "photons": photons}
    given |= {"sample": sample, "seed": seed}
    changes = {SIMULATED[name]: value for name, value in given.items() if value is not None}
    simulation = replace(read_simulation(config) if config else Simulation(), **changes)
    check_outputs({"OUTPUT": output}, inputs=[config, simulation.recipe], overwrite=overwrite)
    scan = simulate_scan(simulation)
    title = f"simulated {simulation.family}, seed {simulation.seed}"
    write_scan(output, scan, title, overwrite=overwrite)
    typer.echo(f"{len(scan.frames)} frames in {output}")


@app.command()
@heard_or_not()
def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="YAML file, such as launch/recipes/train-demo.yaml.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for weights, log and checkpoints.")] = Path("weights"),
    device: Annotated[str, typer.Option(help="Where PyTorch works: cpu, cuda.")] = "cpu",
    from_scan: Annotated[
        str | None,
        typer.Option(metavar="SCAN", help="Recorded scan to match: refined first, then learned from."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Trains a network on simulated scans; goes on where an interrupted training stopped."""
    from launch.training.recipe import read_recipe
    from launch.training.train import progress_bar, told_where_to_go_on
    from launch.training.train import train as train_network

    settings = read_recipe(recipe)
    with progress_bar(settings) as show, told_where_to_go_on(settings, output):
        card = train_network(
            settings,
            output,
            device=device,
            from_scan=from_scan,
            on_report=show,
            recipe_file=recipe,
            overwrite=overwrite,
        )
    if card is None:  # another process of `torchrun` has it
        return
    for name, value in card.metrics.items():
        typer.echo(f"{name:<40}{value:.4g}")
    typer.echo(f"{output / settings.name}.safetensors, version {card.model_id}")
