"""The command that reconstructs a recorded scan: its options, and which of them say what of the scan."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from launch.cli.app import (
    CORES,
    EngineDevice,
    JsonFile,
    OnCluster,
    Overwrite,
    ScanSource,
    Store,
    app,
    at_home,
    finite,
)
from launch.signals import heard_or_not

PROBE_SOURCES = ("file", "data")

Output = Annotated[
    Path | None, typer.Option(callback=at_home, help="CXI file; picture and report lie beside it.")
]
Algorithm = Annotated[
    Literal["epie", "rpie", "dm", "raar"] | None,
    typer.Option(help="Engine; dm and raar are references that keep all exit waves in memory."),
]
Epochs = Annotated[float | None, typer.Option(min=0.01, callback=finite, help="Visits per frame.")]
Modes = Annotated[int | None, typer.Option(min=1, help="Incoherent modes of the probe.")]
ProbeSource = Annotated[
    str | None,
    typer.Option(metavar="file|data|FILE", help="The scan's own, one found from the frames, or a file's."),
]
Energy = Annotated[float | None, typer.Option(callback=finite, help="Photon energy, eV.")]
Distance = Annotated[float | None, typer.Option(callback=finite, help="From sample to detector, metres.")]
PixelPitch = Annotated[
    float | None, typer.Option(callback=finite, help="Pitch of the detector's pixels, metres.")
]
MaskFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", callback=at_home, help=".npy of a frame's shape, not zero where a pixel is valid."
    ),
]
Data = Annotated[str | None, typer.Option(metavar="ARRAY", help="Name of the frames in HDF5 or .npz.")]
PositionsSource = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ARRAY",
        help="Where positions lie: .npy, .csv, text, or an array of the scan's file; Y,X if there are two.",
    ),
]
Unit = Annotated[Literal["m", "mm", "um", "nm"] | None, typer.Option(help="Of these positions.")]
ColumnNames = Annotated[
    str | None,
    typer.Option(metavar="Y,X", help="Names of their columns, or numbers from 0; those called y and x."),
]
Signs = Annotated[
    str | None, typer.Option(metavar="Y,X", help="-1 where a motor moves the sample, not the probe: -1,1.")
]
Crop = Annotated[int | None, typer.Option(min=4, help="Side of the square of detector pixels that is used.")]
Centre = Annotated[
    str | None,
    typer.Option(metavar="ROW,COLUMN", help="Detector pixel of the direct beam; the middle of a frame."),
]
Binning = Annotated[int, typer.Option(min=1, help="Detector pixels, along a side, that become one.")]
Subpixel = Annotated[
    bool, typer.Option("--subpixel", help="Positions count to fractions of a pixel; twice the work.")
]
RefinePositions = Annotated[bool, typer.Option("--refine-positions", help="Refines positions as well.")]
FitFlux = Annotated[
    bool, typer.Option("--fit-flux", help="Each frame has a flux of its own, for a beam that varies.")
]
Poisson = Annotated[bool, typer.Option("--poisson", help="For patterns of few photons.")]
Half = Annotated[Literal["0", "1", "all"], typer.Option(help="Even frames, odd frames or all.")]
RingCorrelation = Annotated[
    bool | None,
    typer.Option(
        "--frc/--no-frc",
        help="Also reconstructs two halves: resolution is how far they agree. Twice the work.",
        show_default="if all took less than a minute",
    ),
]
Product = Annotated[
    Path | None,
    typer.Option(callback=at_home, help="Gets the result once more, as a product of ptychodus (.h5)."),
]
Threads = Annotated[int, typer.Option(min=1, help="Cores to use.", show_default="all")]
Tiles = Annotated[
    int | None,
    typer.Option(min=1, help="Parts of the scan, each refined by a process on its own GPU or cores."),
]
VisitsSeed = Annotated[int | None, typer.Option(min=0, help="Of the order of visits.")]


class _Reconstruct(TyperCommand):
    """Tells who means by `--positions` what it meant before."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses `--positions` without a value."""
        for word, following in zip(args, [*args[1:], "--"], strict=True):
            if word == "--positions" and following.startswith("--"):
                raise typer.BadParameter(
                    "--positions says where positions lie, a file or the name of an array; "
                    "--refine-positions refines them"
                )
        return super().parse_args(ctx, args)


@app.command(cls=_Reconstruct)
@heard_or_not()
def reconstruct(
    scan: ScanSource,
    output: Output = None,
    algorithm: Algorithm = None,
    epochs: Epochs = None,
    modes: Modes = None,
    probe: ProbeSource = None,
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
    subpixel: Subpixel = False,
    refine_positions: RefinePositions = False,
    fit_flux: FitFlux = False,
    poisson: Poisson = False,
    half: Half = "all",
    frc: RingCorrelation = None,
    product: Product = None,
    device: EngineDevice = None,
    threads: Threads = CORES,
    tiles: Tiles = None,
    on: OnCluster = None,
    seed: VisitsSeed = None,
    store: Store = None,
    json: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Reconstructs a recorded scan with the operators of the live pipeline.

    What is not given is as in the run that recorded the scan, for a file as in a run that says nothing of it.
    """
    from launch.commands.reconstruct import reconstruct_file

    given = given_options(
        layout={"data": data, "positions": positions, "unit": unit, "columns": columns, "signs": signs},
        geometry={"energy_ev": energy, "detector_distance_m": distance, "detector_pixel_m": pixel},
        crop={"crop": crop, "centre": centre, "binning": binning},
        files={"mask": mask, "probe": probe},
    )
    source = probe if probe in {None, *PROBE_SOURCES} else "file"
    others = {"n_modes": modes, "probe": source, "device": device, "threads": threads, "tiles": tiles}
    switches = {"subpixel": subpixel, "refines_positions": refine_positions, "poisson": poisson}
    switches |= {"fits_flux": fit_flux}
    choose = _chosen(algorithm, seed, switches, half, epochs=epochs, **others)
    files: dict[str, Any] = {"store": store, "output": output, "product": product, "json_file": json}
    with _places(on, tiles or 1, threads, device) as places:
        told: dict[str, Any] = {"given": given, "correlates_halves": frc, "overwrite": overwrite}
        reconstruct_file(scan, choose, **files, **told, places=places)


def _places(on: str | None, n_tiles: int, threads: int, device: str | None) -> AbstractContextManager[Any]:
    """Return where tiles are refined."""
    from launch.offline.tile_places import HERE

    if on is None:
        return nullcontext(HERE)
    from launch.on_ray.tiles import tiles_on

    return tiles_on(on, n_tiles, threads, device)


def given_options(
    layout: dict[str, Any],
    geometry: dict[str, Any],
    crop: dict[str, Any],
    files: dict[str, Any],
) -> Any:
    """Returns what is said of a scan beside what lies in it."""
    from launch.offline.given import Given
    from stream.files.plain import Layout

    layout["columns"] = _pair("--columns", layout["columns"], str)
    layout["signs"] = _pair("--signs", layout["signs"], int)
    crop["centre"] = _pair("--centre", crop["centre"], int)
    said = {name: value for name, value in layout.items() if value is not None}
    files["probe"] = None if files["probe"] in {None, *PROBE_SOURCES} else _probe_file(files["probe"])
    return Given(layout=Layout(**said), **geometry, **crop, **files)


def _chosen(algorithm: Any, seed: int | None, switches: dict[str, bool], half: str, **others: Any) -> Any:
    """Return what makes the options of a scan: the algorithm is an engine's, or one of the references."""
    from launch.offline.task import options_for
    from operators.engine.projections import ProjectionConfig

    projections = None
    if algorithm == "dm" or algorithm == "raar":
        if switches["fits_flux"]:
            raise ValueError(f"--fit-flux: {algorithm} fits no flux; wanted --algorithm rpie or epie")
        projections, algorithm = ProjectionConfig(algorithm=algorithm), None
    refiner: dict[str, Any] = {"algorithm": algorithm, "seed": seed}
    refiner["noise"] = "poisson" if switches.pop("poisson") else None
    refiner |= {name: is_on or None for name, is_on in switches.items()}
    others["every"], others["offset"] = (1, 0) if half == "all" else (2, int(half))
    return partial(options_for, refiner=refiner, projections=projections, **others)


def _pair(option: str, text: str | None, kind: type) -> Any:
    if not text:
        return None
    try:
        first, second = (kind(part.strip()) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option}: wanted two values apart by a comma, got {text!r}") from None
    return first, second


def _probe_file(text: str) -> Path:
    if not Path(text).is_file():
        raise ValueError(
            f"--probe: there is no file {text}; wanted a file, 'file' for the scan's own probe or 'data' to "
            "find one from the frames"
        )
    return Path(text)
