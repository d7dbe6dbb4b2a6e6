"""The command that writes a first configuration."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.cli.app import Insecure, Overrides, Overwrite, app, at_home, known
from launch.signals import heard_or_not

if TYPE_CHECKING:
    from launch.init.questions import Question


@app.command()
@heard_or_not()
def init(
    output: Annotated[Path, typer.Argument(metavar="CONFIG", callback=at_home, help="YAML file to write.")],
    scan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=at_home,
            help="A recorded scan of the beamline: CXI, NeXus, .ptyd, ptychodus product.",
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A detector: the start of its next series is waited for."),
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option(metavar="FILE|ADDRESS", help="Documents of bluesky, recorded or as they are published."),
    ] = None,
    overrides: Overrides = [],  # noqa: B006 -- typer wants a list
    timeout: Annotated[
        float, typer.Option(min=0, callback=known, help="Longest time to wait at an address, seconds.")
    ] = 30.0,
    ask: Annotated[
        bool | None,
        typer.Option("--ask/--no-ask", help="Whether it asks what nobody told; where somebody can answer."),
    ] = None,
    insecure: Insecure = False,
    overwrite: Overwrite = False,
) -> None:
    """Writes a commented configuration, out of a scan, a detector, bluesky's documents, and your answers."""
    from launch.commands.init import Tellers
    from launch.commands.init import init as write

    if insecure:
        overrides = [*overrides, "detector.insecure=true", "positions.insecure=true"]
    tellers = Tellers(
        overrides=overrides, detector=detector, documents=documents, scan=scan, timeout_s=timeout
    )
    asks = sys.stdin.isatty() if ask is None else ask
    write(output, tellers, ask=_ask if asks else None, say=typer.echo, overwrite=overwrite)
    typer.echo(f"{output}: try it with `ptychostream check {output}`")


def _ask(question: "Question") -> str:
    return str(typer.prompt(question.text, default=question.default or None))
