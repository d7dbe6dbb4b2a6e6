"""The application that every command belongs to, and the arguments and options that several share."""

import math
import os
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from launch.cli.completion import families, recipes
from stream.wire.addresses import CLUSTER


def finite(value: float | None) -> float | None:
    """Refuses infinity and what is no number, which bounds let through."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"wanted a finite number, got {value}.")
    return value


def known(value: float) -> float:
    """Refuses what is no number, which bounds let through; without end is a time to wait."""
    if math.isnan(value):
        raise typer.BadParameter("wanted a number, got nan.")
    return value


def at_home(path: Path | None) -> Path | None:
    """Returns the path with ~ and ~user as a shell takes them, which leaves --save=~/scans as it is."""
    if path is None:
        return None
    try:
        return path.expanduser()
    except RuntimeError:
        raise typer.BadParameter(
            f"there is no home folder {path.parts[0]}; ./{path} is a path here."
        ) from None


def on_cluster(value: str | None) -> str | None:
    """Refuses what names no cluster."""
    if value is not None and not re.fullmatch(CLUSTER, value):
        raise typer.BadParameter(f"wanted ray or ray://HOST:PORT, got {value!r}.")
    return value


CORES = len(os.sched_getaffinity(0))

app = typer.Typer(
    name="ptychostream",
    no_args_is_help=True,
    rich_markup_mode=None,  # its tables cut defaults and addresses at 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigSource = Annotated[
    str,
    typer.Argument(metavar="CONFIG", help="YAML file, or name of a recipe.", autocompletion=recipes),
]
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
        exists=True,
        file_okay=False,
        help="Folder of the store, for a uid; by default that of ./recordings or ./demo.",
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Changes one setting; may be repeated."),
]
Sample = Annotated[str | None, typer.Option(help="Family of simulated samples.", autocompletion=families)]
EngineDevice = Annotated[
    Literal["auto", "numpy", "compiled", "cupy", "cupy-fused"] | None,
    typer.Option(help="What runs an update; the fastest that is there."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", callback=at_home, help="File for the figures, by name.")
]
LogJson = Annotated[
    bool, typer.Option("--log-json", help="Prints a JSON object a line, for programs that collect logs.")
]
Save = Annotated[Path | None, typer.Option(callback=at_home, help="Folder for scans, results and logs.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replaces files that exist; without it nothing is begun.")
]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Opens the page.")]
OnCluster = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ray|ray://HOST:PORT",
        callback=on_cluster,
        help="A Ray cluster that helps: the one of this computer, or one elsewhere, mostly at port 10001.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Insecure = Annotated[
    bool, typer.Option(help="Allows addresses that other machines reach without encryption.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from launch.cli.version import versions

        typer.echo(versions())
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_show_version,
            help="Shows versions, as a report of a bug needs them.",
        ),
    ] = False,
) -> None:
    """Live X-ray ptychography: the sample grows on the screen while the scan is moving."""
