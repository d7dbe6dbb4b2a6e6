"""The application that every command belongs to, and the arguments and options that several share."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

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
