"""Partial coherence: probes that are a mixture, as the orthogonal modes whose intensities add.

A source of finite size, a beam or sample that vibrates and a stage that flies during the exposure all do
the same: the detector adds the intensities of slightly different probes. The mixture is averaged over a few
points of its distribution (Gauss quadrature) and diagonalised, which leaves few modes that matter.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Probe, abs2, fft2, ifft2
from operators.optics.probe import orthogonalise_modes, probe_modes, with_power

N_NODES = 7  # per axis: enough while the spread is not much wider than the finest detail of probe or pattern
FLOWN_PX = 1.0  # way of a probe during an exposure from which its modes start as those of one that moves
MODES_BETWEEN = 12  # kept, at least, between one cause of incoherence, or one axis of it, and the next

Nodes = tuple[NDArray[np.float64], NDArray[np.float64]]


def mixed_probe(
    probe: Probe,
    n_modes: int,
    *,
    coherence_px: float | None = None,
    travel_px: tuple[float, float] = (0.0, 0.0),
    blur_px: float = 0.0,
) -> Probe:
    """Return the modes of a probe with several causes of incoherence, or the probe itself with none.

    Parameters
    ----------
    probe : (mode, y, x) complex64
    n_modes : int
        Most modes to keep, the strongest.
    coherence_px : float, optional
        As `partially_coherent_probe` takes it; full coherence unless given.
    travel_px : (float, float)
        As `flown_probe` takes it.
    blur_px : float
        As `blurred_probe` takes it.

    Returns
    -------
    (mode, y, x) complex64
        Orthogonal, the strongest first, of the probe's power.
    """
    kept, mixed = max(n_modes, MODES_BETWEEN), probe
    if coherence_px is not None:
        mixed = partially_coherent_probe(mixed, coherence_px, kept)
    if any(travel_px):
        mixed = flown_probe(mixed, travel_px, min(kept, len(mixed) * MODES_BETWEEN))
    if blur_px:
        mixed = blurred_probe(mixed, blur_px, kept)
    return probe if mixed is probe else with_power(mixed[:n_modes], float(abs2(probe).sum()))


def blurred_probe(probe: Probe, sigma_px: float, n_modes: int) -> Probe:
    """Return the modes of a probe that shakes on the sample, or is the image of an extended source.

    Parameters
    ----------
    probe : (mode, y, x) complex64
    sigma_px : float
        Standard deviation of its place in y and in x, object pixels; normally distributed.
    n_modes : int
        Modes to keep, the strongest.

    Returns
    -------
    (n_modes, y, x) complex64
        Orthogonal, the strongest first, of the probe's power.

    Notes
    -----
    Vibration as modes: Clark et al., Phys. Rev. Lett. 112, 113901 (2014).
    """
    return _mixture(probe, _normal_nodes(sigma_px), _shifted, n_modes)


def partially_coherent_probe(probe: Probe, coherence_px: float, n_modes: int) -> Probe:
    """Return the modes of a probe whose points interfere less the further they are apart.

    Parameters
    ----------
    probe : (mode, y, x) complex64
    coherence_px : float
        Transverse coherence length at the sample, object pixels: the degree of coherence of two points at a
        distance d is exp(-d^2 / 2 coherence_px^2).
    n_modes : int
        Modes to keep, the strongest.

    Returns
    -------
    (n_modes, y, x) complex64
        Orthogonal, the strongest first, of the probe's power.

    Raises
    ------
    ValueError
        If the length is not positive, or more modes are asked for than the mixture has.

    Notes
    -----
    The Gaussian Schell model (Vartanyants & Singer, New J. Phys. 12, 035004 (2010)); on the detector it
    convolves the pattern with a Gaussian, as does a point spread function.
    """
    if not coherence_px > 0:
        raise ValueError(f"coherence_px must be positive, got {coherence_px}; infinity is full coherence")
    return _mixture(probe, _normal_nodes(1 / coherence_px), _tilted, n_modes)


def flown_probe(probe: Probe, travel_px: tuple[float, float], n_modes: int) -> Probe:
    """Return the modes of a probe that moves evenly along a line during the exposure.

    Parameters
    ----------
    probe : (mode, y, x) complex64
    travel_px : (float, float)
        Rows and columns of the sample that pass by in one exposure; the position is that of the middle.
    n_modes : int
        Modes to keep, the strongest.

    Returns
    -------
    (n_modes, y, x) complex64
        Orthogonal, the strongest first, of the probe's power.

    Notes
    -----
    Fly scans as modes: Pelz et al., Appl. Phys. Lett. 105, 251101 (2014).
    """
    nodes, weights = np.polynomial.legendre.leggauss(2 * N_NODES)
    copies = [
        np.sqrt(weight / 2) * _shifted(probe, node / 2 * travel_px[0], node / 2 * travel_px[1])
        for node, weight in zip(nodes, weights, strict=True)
    ]
    return _strongest(np.concatenate(copies), n_modes)


def line_of_travel(travel: NDArray[np.float64]) -> tuple[float, float]:
    """Return the way that a probe makes in a typical exposure, (y, x), of either sense, in the unit given.

    Parameters
    ----------
    travel : (frame, 2) float64
        From the start of an exposure to its end, (y, x); lines may be flown to and fro.

    Returns
    -------
    (float, float)
        Along the direction that most frames share, as long as the root of their mean square; (0, 0) for
        none. Whoever sits still the whole time moves nowhere.
    """
    if not len(travel):
        return 0.0, 0.0
    squares, directions = np.linalg.eigh(travel.T @ travel / len(travel))
    y, x = np.sqrt(max(float(squares[-1]), 0.0)) * directions[:, -1]
    return float(y), float(x)


def modes_of_travel(travel_px: float) -> int:
    """Return how many modes a probe is refined with that moves so far during an exposure, object pixels."""
    return next((n_modes for least_px, n_modes in ((8.0, 5), (2.0, 3)) if travel_px >= least_px), 1)


def starting_modes(probe: Probe, n_modes: int, travel_px: tuple[float, float] = (0.0, 0.0)) -> Probe:
    """Return the modes that a probe with fewer of them starts from.

    Parameters
    ----------
    probe : (mode, y, x) complex64
    n_modes : int
    travel_px : (float, float)
        Of the probe during an exposure; from `FLOWN_PX` on the modes are those of a probe that moves so.

    Returns
    -------
    (n_modes, y, x) complex64
        Of the power of the first one.
    """
    if np.hypot(*travel_px) >= FLOWN_PX and n_modes <= 2 * N_NODES:
        return flown_probe(probe[:1], travel_px, n_modes)
    return probe_modes(probe[0], n_modes)


def _normal_nodes(sigma: float) -> Nodes:
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    return sigma * nodes, weights / weights.sum()


def _mixture(
    probe: Probe, nodes: Nodes, moved: Callable[[Probe, float, float], Probe], n_modes: int
) -> Probe:
    """Return the strongest modes of a probe that is moved in y and in x.

    One axis after the other: diagonalising the copies of both at once takes six times as long.
    """
    copies = [np.sqrt(weight) * moved(probe, node, 0.0) for node, weight in zip(*nodes, strict=True)]
    n_between = min(len(copies) * len(probe), max(n_modes, MODES_BETWEEN))
    between = _strongest(np.concatenate(copies), n_between)
    copies = [np.sqrt(weight) * moved(between, 0.0, node) for node, weight in zip(*nodes, strict=True)]
    return _strongest(np.concatenate(copies), n_modes)


def _strongest(copies: Probe, n_modes: int) -> Probe:
    if not 1 <= n_modes <= len(copies):
        raise ValueError(f"n_modes must be from 1 to {len(copies)}, got {n_modes}")
    # What the modes left out carried goes to those kept: the photons per frame stay.
    return with_power(orthogonalise_modes(copies)[:n_modes], float(abs2(copies).sum()))


def _shifted(probe: Probe, rows: float, columns: float) -> Probe:
    """Return the probe moved by a part of a pixel, around the edges of its window."""
    ky, kx = (np.fft.fftfreq(side) for side in probe.shape[-2:])
    return ifft2(fft2(probe) * np.exp(-2j * np.pi * (rows * ky[:, None] + columns * kx)))


def _tilted(probe: Probe, rows: float, columns: float) -> Probe:
    """Return the probe arriving at an angle: `rows` and `columns` in rad per pixel."""
    n_rows, n_columns = probe.shape[-2:]
    y, x = np.ogrid[:n_rows, :n_columns]
    return probe * np.exp(1j * (rows * (y - n_rows // 2) + columns * (x - n_columns // 2)))
