"""The command that plays a recorded scan: what a detector and its positions can be sent as."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from launch.cli.app import Insecure, LogJson, ScanSource, Store, app, at_home, finite, known
from stream.wire import addresses

if TYPE_CHECKING:
    from launch.commands.replay import Played
    from launch.logs import JsonLines
    from stream.record.events import EventLevel

Rate = Annotated[
    float, typer.Option(min=0, callback=finite, help="Frames per second; 0 for as fast as possible.")
]
Format = Annotated[
    Literal[
        "dectris-v2", "dectris-v1", "jungfraujoch", "json", "pva", "hdf5", "cxi", "dectris-files", "tiff"
    ],
    typer.Option("--as", help="What the detector speaks or, the last four, which files it writes."),
]
Folder = Annotated[
    Path | None, typer.Option("--to", callback=at_home, help="Folder that files are written to.")
]
Compression = Annotated[Literal["bslz4", "bszstd", "lz4", "none"], typer.Option(help="Of the frames.")]
Address = Annotated[str, typer.Option(help="Where frames go.")]
PvName = Annotated[str | None, typer.Option(help="Name of the PV whose values they are, for --as pva.")]
Bind = Annotated[bool, typer.Option("--bind/--connect", help="Whether this side owns the address.")]
Pattern = Annotated[Literal["PUSH", "PUB"], typer.Option(help="How frames are sent.")]
PositionsTo = Annotated[
    str | None,
    typer.Option(
        help="Where positions go: an address or, for files, a path; the usual one when left out.",
        show_default=False,
    ),
]
PositionsAs = Annotated[
    Literal["documents", "panda-json", "panda", "pva", "csv", "hdf5", "cxi"],
    typer.Option(
        help="What sends the positions: bluesky, a PandA or its relay, two PVs, or a file that grows."
    ),
]
WithPositions = Annotated[
    bool, typer.Option("--with-positions/--no-positions", help="Whether positions are sent as well.")
]
SentUnit = Annotated[
    Literal["m", "mm", "um", "nm"], typer.Option(help="Of the positions sent; what the pipeline expects.")
]
First = Annotated[int | None, typer.Option(min=1, help="Only the first so many.")]
Timeout = Annotated[
    float,
    typer.Option(min=0, callback=known, help="Longest time to wait until somebody takes frames, seconds."),
]
OwnKey = Annotated[
    Path | None, typer.Option(callback=at_home, help="Own secret key file, where positions need keys.")
]
Peers = Annotated[
    Path | None, typer.Option(callback=at_home, help="Public key file of the pipeline, for the same.")
]


@app.command()
def replay(
    scan: ScanSource,
    rate: Rate = 100.0,
    format: Format = "dectris-v2",
    folder: Folder = None,
    compression: Compression = "bslz4",
    address: Address = addresses.DETECTOR,
    pv: PvName = None,
    bind: Bind = True,
    pattern: Pattern = "PUSH",
    positions: PositionsTo = None,
    positions_as: PositionsAs = "documents",
    with_positions: WithPositions = True,
    unit: SentUnit = "um",
    frames: First = None,
    timeout: Timeout = 60.0,
    store: Store = None,
    insecure: Insecure = False,
    key: OwnKey = None,
    peers: Peers = None,
    log_json: LogJson = False,
) -> None:
    """Plays a recorded scan as a detector would send it."""
    from launch.commands.replay import ReplayOptions
    from launch.commands.replay import replay as play
    from launch.logs import JsonLines, as_json
    from launch.offline.recorded import open_recorded
    from stream.wire.sockets import Endpoint

    where = _positions_to(positions, positions_as, scan) if with_positions else ""
    options = ReplayOptions(
        format=format,
        folder=folder,
        compression="" if compression == "none" else compression,
        pv=pv,
        endpoint=Endpoint(address=address, bind=bind, insecure=insecure),
        pattern=pattern,
        rate_hz=rate,
        n_frames=frames,
        positions=Endpoint(address=where, insecure=insecure, key=key, peers=peers) if where else None,
        positions_as=positions_as,
        unit=unit,
        timeout_s=timeout,
    )
    lines = JsonLines(sys.stdout) if log_json else None
    with open_recorded(scan, store) as recorded, as_json(lines) if lines else nullcontext():
        played = play(recorded, options)
    _tell_sent(played, recorded.name, f"PV {pv}" if format == "pva" else str(folder or address), lines)
    raise typer.Exit(played.status)


def _positions_to(given: str | None, kind: str, scan: str) -> str:
    """Return where positions go; FileExistsError if that is a file that is there."""
    from launch.outputs import check_outputs
    from stream.documents.outlets import OUTLETS

    outlet = OUTLETS[kind]
    where = given or outlet.where
    if outlet.is_file:
        check_outputs({"--positions": Path(where)}, inputs=[Path(scan)], overwrite=True)
        if Path(where).exists():
            raise FileExistsError(f"{where}: there already; name another file, --positions")
    return where


def _tell_sent(played: "Played", scan: str, address: str, lines: "JsonLines | None") -> None:
    sent = f"{played.n_sent} of {played.n_frames} frames sent to {address}"
    told = f"{sent}: {played.reason}" if played.reason else sent
    if lines:
        fields = {"n_sent": played.n_sent, "n_frames": played.n_frames}
        level: EventLevel = "error" if played.reason else "info"
        lines.say(told, stage="replay", level=level, scan=scan, fields=fields)
    else:
        typer.echo(told, err=bool(played.reason))
