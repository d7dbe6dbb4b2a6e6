"""Measures one thing, prints what came of it and on which machine, and writes the figures by name.

`python -m tests.benchmarks` lists what can be measured.
"""

import argparse
import ast
import importlib
import importlib.util
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from launch.outputs import check_outputs

BENCHMARKS = {
    "live": "tests.benchmarks.live",
    "outputs": "tests.benchmarks.outputs",
    "refined": "tests.benchmarks.refined",
    "series": "tests.benchmarks.series",
    "growth": "tests.benchmarks.growth.comparison",
    "overload": "tests.benchmarks.overload",
    "faults": "tests.benchmarks.faults.gates",
    "ingest": "tests.benchmarks.ingest",
    "detectors": "tests.benchmarks.detectors",
    "transport": "tests.benchmarks.kilohertz.transport",
    "startup": "tests.benchmarks.startup",
    "pva": "tests.benchmarks.pva",
    "scan_maps": "tests.benchmarks.scan_maps",
    "orient": "tests.benchmarks.orient",
    "beam": "tests.benchmarks.beam",
    "engines": "tests.benchmarks.engines.comparison",
    "engines_gpu": "tests.benchmarks.engines.gpu",
    "network": "tests.benchmarks.network.comparison",
    "network_gpu": "tests.benchmarks.network.gpu",
    "workers": "tests.benchmarks.network.workers",
    "remote": "tests.benchmarks.network.remote",
    "live_gpu": "tests.benchmarks.kilohertz.gpu",
    "network_recorded": "tests.benchmarks.network.recorded",
    "adaptive": "tests.benchmarks.adaptive.comparison",
    "adaptive_recorded": "tests.benchmarks.adaptive.recorded",
    "capacity": "tests.benchmarks.capacity.estimate",
}


def main() -> None:
    """Runs the benchmark that the command line names, or lists all."""
    listed = "\n".join(f"  {name:<18}{_summary(module)}" for name, module in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=f"{(__doc__ or '').splitlines()[0]}\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, metavar="NAME", help="one of the above")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go, by name")
    parser.add_argument("--overwrite", action="store_true", help="replaces a file that exists")
    parser.add_argument("--folder", type=Path, help="keeps what it writes: scans, weights, pictures")
    parser.add_argument(
        "--rehearse", action="store_true", help="the same with small sizes on a CPU, where a benchmark can"
    )
    options = parser.parse_args()
    if options.name is None:
        parser.print_help()
        return
    try:
        check_outputs({"--json": options.json}, overwrite=options.overwrite)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    module = importlib.import_module(BENCHMARKS[options.name])
    if options.rehearse and module.BENCHMARK.rehearse is None:
        parser.error(f"{options.name} has no rehearsal: it needs no device")
    with tempfile.TemporaryDirectory(prefix=f"benchmark-{options.name}-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        figures = module.BENCHMARK.run(folder, options.json, rehearses=options.rehearse)
    # A file or a pipe has no width; names of figures are to stay in one piece.
    console = Console(width=None if sys.stdout.isatty() else 120)
    module.BENCHMARK.show(options.name, figures, console)


def _summary(module: str) -> str:
    """Return the first line of a module's docstring, without what importing it takes."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text()))
    return (docstring or "").partition("\n")[0]


if __name__ == "__main__":
    main()
