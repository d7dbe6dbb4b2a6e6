"""Puts one finished scan into the store: `python -m launch.results.store.process STORE SCAN [RESULT.cxi]`.

A process of its own because the catalogue costs seconds and may fail in ways that are not the recorder's
business. Prints the uid of the stored run; can be repeated at any time for a scan that missed the store.
"""

import argparse
import sys
from pathlib import Path

from launch.child_process import die_with
from launch.results.cxi import read_result
from launch.results.reconstruction import Reconstruction
from launch.results.store.catalogue import Result, open_store
from launch.results.summary import summarise
from stream.documents.codec import read_documents
from stream.record.scan import Scan


def main(arguments: list[str] | None = None) -> int:
    """Stores the scan; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.results.store.process", description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("scan", type=Path)
    parser.add_argument("result", type=Path, nargs="?")
    parser.add_argument("--parent", type=int, help="process id of the recorder: this process dies with it")
    options = parser.parse_args(arguments)
    if options.parent:
        die_with(options.parent)
    print(store_scan(options.store, options.scan, options.result))
    return 0


def store_scan(store: Path, scan_folder: Path, result_file: Path | None = None) -> str:
    """Returns the uid under which the scan, and its reconstruction if there is one, are now in the store."""
    reconstruction = None if result_file is None else read_result(result_file)
    documents = list(read_documents(scan_folder))
    result = None if reconstruction is None else _result(Scan(scan_folder), reconstruction)
    geometry = None if reconstruction is None else reconstruction.geometry
    with open_store(store) as opened:
        uid, _ = opened.record_run(scan_folder, documents, result, geometry=geometry)
    return uid


def _result(scan: Scan, reconstruction: Reconstruction) -> Result:
    geometry = reconstruction.geometry
    arrays = {name: getattr(reconstruction, name) for name in ("object", "probe", "photons", "positions_m")}
    figures = {name: value for name, value in summarise(scan).items() if value is not None}
    bounds = reconstruction.bounds
    metadata = figures | {
        "object_pixel_m": geometry.object_pixel_m,
        "wavelength_m": geometry.wavelength_m,
        "bounds_px": [bounds.top, bounds.left, bounds.bottom, bounds.right],
        "run_id": scan.header.run_id,
        "config_hash": scan.header.config_hash,
    }
    return Result(arrays={**arrays, **reconstruction.maps}, metadata=metadata)


if __name__ == "__main__":
    sys.exit(main())
