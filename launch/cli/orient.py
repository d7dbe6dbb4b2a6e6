"""The command that says which signs, axes and centre a scan wants."""

from pathlib import Path
from typing import Annotated

import typer

from launch.cli.app import JsonFile, Overwrite, Store, app, at_home
from launch.cli.completion import recipes
from launch.cli.reconstruct import (
    Binning,
    Centre,
    ColumnNames,
    Crop,
    Data,
    Distance,
    Energy,
    MaskFile,
    PixelPitch,
    PositionsSource,
    Signs,
    Threads,
    Unit,
    given_options,
)
from launch.signals import heard_or_not


@app.command()
@heard_or_not()
def orient(
    scan: Annotated[
        str,
        typer.Argument(
            metavar="SCAN|CONFIG",
            help="A scan as `reconstruct` takes it, or a configuration for the newest scan that it recorded.",
            autocompletion=recipes,
        ),
    ],
    write: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", callback=at_home, help="Configuration that gets what was found."),
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="Frames that are passed over.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="How many are looked at from there on.")] = 384,
    energy: Energy = None,
    distance: Distance = None,
    pixel: PixelPitch = None,
    mask: MaskFile = None,
    data: Data = None,
    positions: PositionsSource = None,
    unit: Unit = None,
    columns: ColumnNames = None,
    signs: Signs = None,
    crop: Crop = None,
    centre: Centre = None,
    binning: Binning = 1,
    threads: Threads = 1,
    store: Store = None,
    json: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Says which signs and axes of the positions fit the frames, where the beam is, and how sure that is.

    Exit status 1 where the frames do not tell.
    """
    from launch.commands.orient import orient_scan

    given = given_options(
        layout={"data": data, "positions": positions, "unit": unit, "columns": columns, "signs": signs},
        geometry={"energy_ev": energy, "detector_distance_m": distance, "detector_pixel_m": pixel},
        crop={"crop": crop, "centre": centre, "binning": binning},
        files={"mask": mask, "probe": None},
    )
    raise typer.Exit(
        orient_scan(
            scan,
            given=given,
            store=store,
            write=write,
            first=first,
            n_frames=frames,
            threads=threads,
            json_file=json,
            overwrite=overwrite,
        )
    )
