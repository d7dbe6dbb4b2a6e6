"""The commands of scans that are recorded or simulated."""

import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from launch.cli.app import (
    Insecure,
    JsonFile,
    LogJson,
    Overwrite,
    Sample,
    ScanSource,
    Store,
    app,
    at_home,
    finite,
    known,
)
from launch.signals import heard_or_not
from stream.wire import addresses

if TYPE_CHECKING:
    from launch.commands.replay import Played
    from launch.logs import JsonLines
    from stream.record.events import EventLevel

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
    rate: Annotated[
        float, typer.Option(min=0, callback=finite, help="Frames per second; 0 for as fast as possible.")
    ] = 100.0,
    format: Annotated[
        Literal[
            "dectris-v2", "dectris-v1", "jungfraujoch", "json", "pva", "hdf5", "cxi", "dectris-files", "tiff"
        ],
        typer.Option("--as", help="What the detector speaks or, the last four, which files it writes."),
    ] = "dectris-v2",
    folder: Annotated[
        Path | None, typer.Option("--to", callback=at_home, help="Folder that files are written to.")
    ] = None,
    compression: Annotated[
        Literal["bslz4", "bszstd", "lz4", "none"], typer.Option(help="Of the frames.")
    ] = "bslz4",
    address: Annotated[str, typer.Option(help="Where frames go.")] = addresses.DETECTOR,
    pv: Annotated[
        str | None, typer.Option(help="Name of the PV whose values they are, for --as pva.")
    ] = None,
    bind: Annotated[
        bool, typer.Option("--bind/--connect", help="Whether this side owns the address.")
    ] = True,
    pattern: Annotated[Literal["PUSH", "PUB"], typer.Option(help="How frames are sent.")] = "PUSH",
    positions: Annotated[
        str | None,
        typer.Option(
            help="Where positions go: an address or, for files, a path; the usual one when left out.",
            show_default=False,
        ),
    ] = None,
    positions_as: Annotated[
        Literal["documents", "panda-json", "panda", "pva", "csv", "hdf5", "cxi"],
        typer.Option(
            help="What sends the positions: bluesky, a PandA or its relay, two PVs, or a file that grows."
        ),
    ] = "documents",
    with_positions: Annotated[
        bool, typer.Option("--with-positions/--no-positions", help="Whether positions are sent as well.")
    ] = True,
    unit: Annotated[
        Literal["m", "mm", "um", "nm"], typer.Option(help="Of the positions sent; what the pipeline expects.")
    ] = "um",
    frames: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0, callback=known, help="Longest time to wait until somebody takes frames, seconds."
        ),
    ] = 60.0,
    store: Store = None,
    insecure: Insecure = False,
    key: Annotated[
        Path | None, typer.Option(callback=at_home, help="Own secret key file, where positions need keys.")
    ] = None,
    peers: Annotated[
        Path | None, typer.Option(callback=at_home, help="Public key file of the pipeline, for the same.")
    ] = None,
    log_json: LogJson = False,
) -> None:
    """Plays a recorded scan as a detector would send it."""
    from launch.commands.replay import ReplayOptions
    from launch.commands.replay import replay as play
    from launch.logs import JsonLines, as_json
    from launch.offline.recorded import open_recorded
    from launch.outputs import check_outputs
    from stream.documents.outlets import OUTLETS
    from stream.wire.sockets import Endpoint

    outlet = OUTLETS[positions_as]
    where = positions or outlet.where
    if outlet.is_file and with_positions:
        check_outputs({"--positions": Path(where)}, inputs=[Path(scan)], overwrite=True)
        if Path(where).exists():
            raise FileExistsError(f"{where}: there already; name another file, --positions")
    options = ReplayOptions(
        format=format,
        folder=folder,
        compression="" if compression == "none" else compression,
        pv=pv,
        endpoint=Endpoint(address=address, bind=bind, insecure=insecure),
        pattern=pattern,
        rate_hz=rate,
        n_frames=frames,
        positions=Endpoint(address=where, insecure=insecure, key=key, peers=peers)
        if with_positions
        else None,
        positions_as=positions_as,
        unit=unit,
        timeout_s=timeout,
    )
    lines = JsonLines(sys.stdout) if log_json else None
    with open_recorded(scan, store) as recorded, as_json(lines) if lines else nullcontext():
        played = play(recorded, options)
    where = f"PV {pv}" if format == "pva" else str(folder or address)
    _tell_sent(played, recorded.name, where, lines)
    raise typer.Exit(played.status)


def _tell_sent(played: "Played", scan: str, address: str, lines: "JsonLines | None") -> None:
    sent = f"{played.n_sent} of {played.n_frames} frames sent to {address}"
    told = f"{sent}: {played.reason}" if played.reason else sent
    if lines:
        fields = {"n_sent": played.n_sent, "n_frames": played.n_frames}
        level: EventLevel = "error" if played.reason else "info"
        lines.say(told, stage="replay", level=level, scan=scan, fields=fields)
    else:
        typer.echo(told, err=bool(played.reason))


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


@app.command()
def ledger(
    scan: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCAN",
            callback=at_home,
            help="Folder of a scan, or one that runs save to for its newest; ./recordings or ./demo.",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(callback=at_home, help="File for a table.")] = None,
    json: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Shows where every frame of a scan is at every stage, and how long that took.

    The scan may be going on, be finished, or be left by a run that was killed; nothing is written to it.
    """
    from launch.commands.ledger import ledger as show

    raise typer.Exit(show(scan, csv_file=csv, json_file=json, overwrite=overwrite))


@app.command(cls=_Simulate)
def simulate(
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT", callback=at_home, help="CXI file to write; the truth lies in its group `truth`."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            callback=at_home, help="YAML file with all options, also effects of beam, stage and detector."
        ),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Rows of the raster.")] = None,
    columns: Annotated[int | None, typer.Option(min=2, help="Columns of the raster.")] = None,
    step: Annotated[
        float | None, typer.Option(callback=finite, help="Distance of positions, object pixels.")
    ] = None,
    photons: Annotated[float | None, typer.Option(callback=finite, help="Mean photons per frame.")] = None,
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
        Path,
        typer.Argument(
            metavar="RECIPE", callback=at_home, help="YAML file, such as launch/recipes/train-demo.yaml."
        ),
    ],
    output: Annotated[
        Path, typer.Option(callback=at_home, help="Folder for weights, log and checkpoints.")
    ] = Path("weights"),
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
