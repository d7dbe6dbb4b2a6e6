"""The probe in a file of any kind that is read here."""

from pathlib import Path

import numpy as np

from stream.files.arrays import read_archive, read_array


def read_probe(path: Path) -> np.ndarray:
    """Returns the probe in a file, (mode, y, x) complex64.

    .npy, .npz with one complex array or one called `probe`, a ptychodus product, a recorded scan, or a result
    of ours.

    Raises
    ------
    ValueError
        If the file holds no probe, or one that carries no light.
    """
    probe: np.ndarray | None
    if path.suffix == ".npy":
        probe = read_array(path)
    elif path.suffix == ".npz":
        probe = _from_archive(path)
    else:
        from stream.files.cxi import read_illumination

        probe = read_illumination(path)
    if probe is None or not np.iscomplexobj(probe) or probe.ndim not in (2, 3):
        found = "no probe" if probe is None else f"{probe.dtype} of shape {probe.shape}"
        raise ValueError(f"{path}: wanted a complex probe (mode, y, x), found {found}")
    if not np.isfinite(probe).all() or not probe.any():
        found = "only zeros" if np.isfinite(probe).all() else "values that are not finite"
        raise ValueError(f"{path}: the probe holds {found}: no frame can be explained by it")
    return np.asarray(probe, np.complex64).reshape(-1, *probe.shape[-2:])


def _from_archive(path: Path) -> np.ndarray | None:
    arrays = read_archive(path)
    names = [name for name, array in arrays.items() if np.iscomplexobj(array)]
    name = "probe" if "probe" in names else names[0] if len(names) == 1 else ""
    probe = arrays.get(name)
    # a product of ptychodus: (coherent mode, incoherent mode, y, x)
    return probe[0] if probe is not None and probe.ndim == 4 else probe
