"""Simulated samples: textures between 0 and 1, and the complex objects made of them.

Training draws its objects from `FAMILIES`; `HELD_OUT_FAMILIES` are never trained on and show what a
network does with an unseen sample.
"""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Texture = NDArray[np.float32]
Shape = tuple[int, int]

DEMO_MATERIAL = 0.3 + 1.2j
WARP_REACH_PX = (6.0, 30.0)  # over which a warped texture bends
WARP_BEND = (0.1, 0.6)  # how far its points move, in units of that reach, rms


def texture(family: str, shape: Shape, rng: np.random.Generator) -> Texture:
    """Return one random texture of a family; the same generator state gives the same texture.

    Parameters
    ----------
    family : str
        One of `FAMILIES` or `HELD_OUT_FAMILIES`.
    shape : (int, int)
        Rows and columns, pixels.
    rng : numpy.random.Generator
        The source of all randomness.

    Returns
    -------
    (row, col) float32 in [0, 1]
        Read as the thickness of the sample in units of its thickest part.

    Raises
    ------
    ValueError
        If the family is unknown or a side is shorter than 16 pixels.
    """
    if family not in _DRAW:
        raise ValueError(f"unknown texture family {family!r}; choose one of {', '.join(_DRAW)}")
    if min(shape) < 16:
        raise ValueError(f"a texture needs at least 16 x 16 pixels, got {shape[0]} x {shape[1]}")
    return _stretched(_DRAW[family](shape, rng))


def texture_from_image(image: NDArray, shape: Shape, rng: np.random.Generator) -> Texture:
    """Return a random piece of a picture, turned, flipped, scaled, and negative or not.

    Parameters
    ----------
    image : (row, col) or (row, col, colour) real
        Reflected at its edges where the piece reaches beyond them.
    shape : (int, int)
        Rows and columns of the piece, pixels.
    rng : numpy.random.Generator

    Returns
    -------
    (row, col) float32 in [0, 1]
    """
    grey = np.asarray(image, np.float32)
    grey = grey.mean(axis=-1) if grey.ndim == 3 else grey
    scale = np.exp(rng.uniform(np.log(0.5), np.log(2)))  # pixels of the picture per pixel of the piece
    angle, flip = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [1.0, flip]
    middle = rng.uniform(0, grey.shape) - turn @ (np.array(shape) / 2)
    smooth = ndimage.gaussian_filter(grey, 0.4 * scale)  # nothing finer than the pixels of the piece
    piece = ndimage.affine_transform(smooth, turn, middle, shape, order=1, mode="reflect")
    return _stretched(piece if rng.random() < 0.5 else -piece)


def warped(values: Texture, rng: np.random.Generator) -> Texture:
    """Return a texture on ground that is bent at random: lines curve, circles become uneven.

    Parameters
    ----------
    values : (row, col) float32
    rng : numpy.random.Generator

    Returns
    -------
    (row, col) float32
        Moved by smooth random distances; what lies beyond the edges is their mirror image.
    """
    reach_px = np.exp(rng.uniform(*np.log(WARP_REACH_PX)))
    smooth = ndimage.gaussian_filter(
        rng.standard_normal((2, *values.shape)), (0, reach_px, reach_px), mode="wrap"
    )
    distance = rng.uniform(*WARP_BEND) * reach_px * smooth / smooth.std()
    return ndimage.map_coordinates(values, np.indices(values.shape) + distance, order=1, mode="reflect")


def siemens_star(
    shape: Shape, n_spokes: int, *, centre: tuple[float, float] | None = None, angle_rad: float = 0.0
) -> Texture:
    """Return a Siemens star whose period at radius r is 2 pi r / n_spokes pixels.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns, pixels.
    n_spokes : int
        Bright spokes around the circle.
    centre : (float, float), optional
        Row and column of the star's centre, pixels; the middle of the array unless given.
    angle_rad : float
        Turns the whole star.

    Returns
    -------
    (row, col) float32 in [0, 1]
        1 on a spoke; edges are one pixel wide, so that nothing is aliased above a period of two pixels.
    """
    row, col = centre or ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    y, x = np.ogrid[: shape[0], : shape[1]]
    radius = np.hypot(y - row, x - col)
    waves = np.sin(n_spokes * (np.arctan2(y - row, x - col) - angle_rad))
    pixels_from_edge = np.arcsin(waves) * radius / n_spokes
    return np.clip(0.5 + pixels_from_edge, 0, 1).astype(np.float32)


def object_from_texture(
    thickness: Texture, material: complex = DEMO_MATERIAL, phase_texture: Texture | None = None
) -> NDArray[np.complex64]:
    """Return the transmission exp(-(a + i b) t) of a sample, with material = a + i b.

    Parameters
    ----------
    thickness : (row, col) float32 in [0, 1]
    material : complex
        Amplitude attenuation (real part) and phase delay in rad (imaginary part) where the texture is 1.
    phase_texture : (row, col) float32 in [0, 1], optional
        Delays the phase in place of `thickness`, so that amplitude and phase are independent ("mixed"): the
        harder problem, because one no longer tells the other.

    Returns
    -------
    (row, col) complex64

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    delay = thickness if phase_texture is None else phase_texture
    if delay.shape != thickness.shape:
        raise ValueError(
            f"phase_texture has shape {delay.shape}, thickness has {thickness.shape}; make them equal"
        )
    return np.exp(-(material.real * thickness + 1j * material.imag * delay)).astype(np.complex64)


def _stretched(values: NDArray) -> Texture:
    low, high = np.percentile(values, (0.5, 99.5))
    return np.clip((values - low) / (high - low + 1e-9), 0, 1).astype(np.float32)


def _softened(values: NDArray, rng: np.random.Generator) -> NDArray:
    return ndimage.gaussian_filter(np.asarray(values, np.float32), rng.uniform(0.4, 1.0))


def _smooth(shape: Shape, rng: np.random.Generator) -> NDArray:
    return ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(2, 10), mode="wrap")


def _power_law(shape: Shape, rng: np.random.Generator) -> NDArray:
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) / frequency ** rng.uniform(1.0, 2.0)
    return np.fft.irfft2(spectrum, s=shape)


def _polygons(shape: Shape, rng: np.random.Generator) -> NDArray:
    values = np.zeros(shape, np.float32)
    for _ in range(rng.integers(40, 120)):
        centre, radius = rng.uniform(0, shape), rng.uniform(4, 36)
        window, y, x = _around(centre, 2 * radius, shape)
        inside = np.ones((y.size, x.size), bool)
        n_sides, first = rng.integers(3, 9), rng.uniform(0, 2 * np.pi)
        for side in range(n_sides):
            angle = first + 2 * np.pi * side / n_sides + rng.uniform(-0.2, 0.2)
            inside &= x * np.cos(angle) + y * np.sin(angle) < radius * rng.uniform(0.6, 1)
        if rng.random() < 0.5:
            values[window][inside] = rng.random()
        else:
            values[window][inside] += rng.uniform(-0.5, 0.5)
    return _softened(values, rng)


def _around(centre: NDArray, reach: float, shape: Shape) -> tuple[tuple[slice, slice], NDArray, NDArray]:
    """Return the window within `reach` of a centre, and its rows and columns counted from that centre."""
    low = np.clip(np.floor(centre - reach), 0, shape).astype(int)
    high = np.clip(np.ceil(centre + reach), 0, shape).astype(int)
    y = np.arange(low[0], high[0])[:, None] - centre[0]
    x = np.arange(low[1], high[1])[None, :] - centre[1]
    return (slice(low[0], high[0]), slice(low[1], high[1])), y, x


def _siemens(shape: Shape, rng: np.random.Generator) -> NDArray:
    centre = rng.uniform(0.3, 0.7, 2) * shape
    n_spokes, angle_rad = int(rng.integers(10, 40)), rng.uniform(0, 2 * np.pi)
    values = siemens_star(shape, n_spokes, centre=(centre[0], centre[1]), angle_rad=angle_rad)
    if rng.random() < 0.7:
        y, x = np.ogrid[: shape[0], : shape[1]]
        rings = np.hypot(y - centre[0], x - centre[1]) / rng.uniform(15, 40)
        values = np.where(rings % 1 < 0.12, 0, values)
    return _softened(values, rng)


def _voronoi(shape: Shape, rng: np.random.Generator) -> NDArray:
    seeds = rng.uniform(0, shape, (rng.integers(60, 500), 2))
    pixels = np.indices(shape).reshape(2, -1).T
    distance, nearest = cKDTree(seeds).query(pixels, k=2)
    to_edge = (distance[:, 1] - distance[:, 0]).reshape(shape)
    level = rng.random(len(seeds))[nearest[:, 0]].reshape(shape)
    kind = rng.integers(3)
    if kind == 0:
        values = level
    elif kind == 1:
        values = np.minimum(to_edge, rng.uniform(2, 6))
    else:
        dome = np.sqrt(np.maximum(0, 1 - (distance[:, 0].reshape(shape) / 12) ** 2))
        values = 0.6 * level + 0.4 * (to_edge > 1.5) * dome
    return _softened(values, rng)


def _glyphs(shape: Shape, rng: np.random.Generator) -> NDArray:
    """Return letter-like signs: a few strokes between the nodes of a 3 x 2 grid, turned and scaled."""
    values = np.zeros(shape, np.float32)
    nodes = np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-0.6, 0.6], indexing="ij"), axis=-1).reshape(-1, 2)
    for _ in range(int(rng.uniform(2.5, 5) * shape[0] * shape[1] / 1000)):
        centre, size, angle = rng.uniform(0, shape), rng.uniform(3, 14), rng.uniform(0, 2 * np.pi)
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        window, y, x = _around(centre, 1.5 * size, shape)
        path = nodes[rng.permutation(6)[: rng.integers(3, 6)]] @ turn
        distance = np.full((y.size, x.size), np.inf)
        for start, end in itertools.pairwise(path):
            distance = np.minimum(distance, _distance_to_stroke(y, x, start, end))
        ink = np.clip(0.5 + size * rng.uniform(0.08, 0.2) - distance, 0, 1) * rng.choice([0.3, 0.5, 0.7, 1.0])
        values[window] = np.maximum(values[window], ink)
    return _softened(values, rng)


def _distance_to_stroke(y: NDArray, x: NDArray, start: NDArray, end: NDArray) -> NDArray:
    along = end - start
    share = ((y - start[0]) * along[0] + (x - start[1]) * along[1]) / (along @ along)
    share = np.clip(share, 0, 1)
    return np.hypot(y - start[0] - share * along[0], x - start[1] - share * along[1])


def _filaments(shape: Shape, rng: np.random.Generator) -> NDArray:
    values = np.zeros(shape)
    for _ in range(5):
        field = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(4, 9), mode="wrap")
        field /= field.std()
        slope = np.hypot(*np.gradient(field))
        values += np.exp(-((field / (slope + 0.02) / 1.1) ** 2)) * rng.uniform(0.3, 1)
    return values


def _gratings(shape: Shape, rng: np.random.Generator) -> NDArray:
    """Return fields of lines, each with a pitch, duty, height and direction of its own, straight or round."""
    seeds = rng.uniform(0, shape, (rng.integers(2, 14), 2))
    pixels = np.indices(shape, np.float32)
    _, field = cKDTree(seeds).query(pixels.reshape(2, -1).T)
    field = field.reshape(shape)
    values = np.zeros(shape, np.float32)
    for number, (row, column) in enumerate(seeds):
        angle, pitch_px = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(4), np.log(28)))
        if rng.random() < 0.25:
            distance = np.hypot(pixels[0] - row, pixels[1] - column)
        else:
            distance = pixels[0] * np.cos(angle) + pixels[1] * np.sin(angle)
        from_middle_px = pitch_px * np.abs((distance / pitch_px) % 1 - 0.5)
        lines = np.clip(0.5 + pitch_px * rng.uniform(0.15, 0.35) - from_middle_px, 0, 1)
        values = np.where(field == number, rng.uniform(0.3, 1) * lines, values)
    return _softened(values, rng)


def _circuits(shape: Shape, rng: np.random.Generator) -> NDArray:
    """Return layers of wires and pads on a grid, as of an integrated circuit; crossing layers add up."""
    values = np.zeros(shape, np.float32)
    for layer in range(rng.integers(2, 5)):
        pitch_px = int(rng.integers(4, 13))
        width_px = max(2, round(pitch_px * rng.uniform(0.35, 0.65)))
        metal = np.zeros(shape, bool)
        along = metal if layer % 2 else metal.T  # a view: wires of alternate layers run across each other
        n_tracks = along.shape[0] // pitch_px
        for track in np.flatnonzero(rng.random(n_tracks) < rng.uniform(0.3, 0.9)):
            start = 0
            while start < along.shape[1]:
                length = int(rng.exponential(8 * pitch_px)) + pitch_px
                along[track * pitch_px : track * pitch_px + width_px, start : start + length] = True
                start += length + int(rng.exponential(3 * pitch_px)) + pitch_px
        for _ in range(rng.integers(0, 12)):
            row, column = (rng.integers(0, side // pitch_px + 1) * pitch_px for side in along.shape)
            side = int(rng.integers(1, 4)) * pitch_px
            along[row : row + side, column : column + side] = True
        values += rng.uniform(0.3, 1) * metal
    return _softened(values, rng)


def _cells(shape: Shape, rng: np.random.Generator) -> NDArray:
    """Return biological cells: uneven outlines, a body, a denser nucleus and rim, and grains inside."""
    values = np.zeros(shape, np.float32)
    for _ in range(int(rng.uniform(3, 12) * shape[0] * shape[1] / 10000)):
        centre, size = rng.uniform(0, shape), rng.uniform(8, 34)
        window, y, x = _around(centre, 1.6 * size, shape)
        angle, radius = np.arctan2(y, x), np.hypot(y, x)
        outline = 1 + sum(
            rng.uniform(0, 0.25) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) / (k - 1) for k in (2, 3, 4)
        )
        inside = radius / (size * outline)
        body = np.sqrt(np.maximum(0, 1 - inside**2))
        rim = np.exp(-(((inside - 0.95) * size / 1.5) ** 2))
        offset = rng.uniform(-0.25, 0.25, 2) * size
        nucleus = np.hypot(y - offset[0], x - offset[1]) < size * rng.uniform(0.25, 0.45)
        cell = rng.uniform(0.3, 0.6) * body + rng.uniform(0, 0.3) * rim + rng.uniform(0.1, 0.4) * nucleus
        grains = ndimage.gaussian_filter(rng.standard_normal(cell.shape), rng.uniform(0.8, 2.0))
        cell *= 1 + rng.uniform(0, 0.4) * grains / (grains.std() + 1e-9)
        values[window] = np.maximum(values[window], np.where(inside < 1.1, cell, 0))
    return _softened(values, rng)


def _particles(shape: Shape, rng: np.random.Generator) -> NDArray:
    """Return spheres of many sizes, full or hollow; where they overlap their thicknesses add."""
    values = np.zeros(shape, np.float32)
    typical_px, spread = np.exp(rng.uniform(np.log(3), np.log(14))), rng.uniform(0.1, 0.6)
    covered = rng.uniform(0.3, 1.2)
    n_spheres = int(covered * shape[0] * shape[1] / (np.pi * typical_px**2)) + 1
    hollow = rng.uniform(0.5, 0.9) if rng.random() < 0.4 else 0.0
    for radius in typical_px * np.exp(spread * rng.standard_normal(n_spheres)):
        window, y, x = _around(rng.uniform(0, shape), radius + 1, shape)
        r2 = y**2 + x**2
        outer, inner = (np.sqrt(np.maximum(0, side**2 - r2)) for side in (radius, hollow * radius))
        values[window] += outer - inner
    return _softened(values, rng)


_DRAW: dict[str, Callable[[Shape, np.random.Generator], NDArray]] = {
    "smooth": _smooth,
    "power_law": _power_law,
    "polygons": _polygons,
    "siemens": _siemens,
    "voronoi": _voronoi,
    "gratings": _gratings,
    "circuits": _circuits,
    "cells": _cells,
    "particles": _particles,
    "glyphs": _glyphs,
    "filaments": _filaments,
}
HELD_OUT_FAMILIES = ("glyphs", "filaments")
FAMILIES = tuple(name for name in _DRAW if name not in HELD_OUT_FAMILIES)
PHOTOGRAPHS = {
    "natural": (
        "astronaut",
        "brick",
        "camera",
        "cat",
        "coffee",
        "coins",
        "grass",
        "gravel",
        "immunohistochemistry",
        "moon",
        "retina",
    ),
    "natural_unseen": ("cell", "hubble_deep_field", "rocket"),
}
"""Names in `skimage.data`. The second are never trained on: the first are judged by them."""
TRAINING_FAMILIES = (*FAMILIES, "natural")
