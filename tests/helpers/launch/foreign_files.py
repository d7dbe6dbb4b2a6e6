"""Files as ptypy and ptychodus lay them out, made from one simulated scan."""

from pathlib import Path

import h5py
import numpy as np

from launch.beamline.simulation import SimulatedScan

PTYCHODUS_ARRAYS = ("probe_position_indexes", "probe_position_x_m", "probe_position_y_m", "probe")


def write_ptyd(
    path: Path, scan: SimulatedScan, *, chunk_frames: int = 7, invalid: tuple[int, int] = ()
) -> None:
    """As `PtyScan` with save='append' does: energy in keV, a psize for each axis, chunks of some frames."""
    geometry = scan.geometry
    with h5py.File(path, "w") as file:
        meta = file.create_group("meta")
        meta["energy"], meta["distance"] = geometry.energy_ev / 1e3, geometry.detector_distance_m
        meta["psize"] = np.full(2, geometry.detector_pixel_m)
        meta["shape"] = np.array(scan.frames.shape[1:])
        meta["center"] = np.array(scan.frames.shape[1:]) / 2
        meta["label"], meta["experimentID"] = "None", "None"
        for number, start in enumerate(range(0, len(scan.frames), chunk_frames)):
            part = slice(start, start + chunk_frames)
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"] = scan.frames[part].astype(np.int32)
            chunk["positions"] = scan.positions_m[part]
            chunk["indices"] = np.arange(len(scan.frames))[part]
            weights = np.ones(chunk["data"].shape, np.float32)
            if invalid:
                weights[(-1, *invalid)] = 0
            chunk["weights"] = weights if invalid else np.empty(0)


def write_product(
    folder: Path, scan: SimulatedScan, *, name: str = "product.h5", stem: str = "diffraction"
) -> Path:
    """A product and its patterns; they are numbered from 100, and in another order than the positions."""
    numbers = 100 + np.arange(len(scan.frames))
    y, x = scan.positions_m[::-1].T
    arrays = dict(zip(PTYCHODUS_ARRAYS, (numbers[::-1], x, y, scan.probe[None]), strict=True))
    pixel_m = scan.geometry.object_pixel_m
    values = {
        "name": "scan",
        "probe_energy_eV": scan.geometry.energy_ev,
        "detector_object_distance_m": scan.geometry.detector_distance_m,
    }
    bad = np.zeros(scan.frames.shape[1:], bool)
    bad[2, 5] = True
    patterns = {"patterns": scan.frames, "indexes": numbers, "bad_pixels": bad}
    path = folder / name
    if path.suffix == ".npz":
        widths = {"probe_pixel_width_m": pixel_m, "probe_pixel_height_m": pixel_m}
        np.savez(path, **arrays, **values, **widths)
        np.savez(folder / f"{stem}.npz", **patterns)
        return path
    with h5py.File(path, "w") as file:
        file.attrs.update(values)
        for key, array in arrays.items():
            file[key] = array
        file["probe"].attrs.update(pixel_width_m=pixel_m, pixel_height_m=pixel_m)
    with h5py.File(folder / f"{stem}.h5", "w") as file:
        for key, array in patterns.items():
            file[key] = array
    return path
