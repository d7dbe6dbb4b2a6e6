"""The commands of scans that are recorded or simulated."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from launch.cli.app import (
    JsonFile,
    Overwrite,
    Sample,
    app,
    at_home,
    finite,
)
from launch.signals import heard_or_not

# The options of `simulate` and the fields of `Simulation` that they set.
SIMULATED = {
    "rows": "n_rows",
    "columns": "n_columns",
    "step": "step_px",
    "photons": "photons_per_frame",
    "sample": "family",
    "seed": "seed",
}


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
