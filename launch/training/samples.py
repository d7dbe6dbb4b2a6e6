"""Samples as recipes name them: textures of `operators.optics.samples`, and pieces of photographs."""

import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from launch.extras import missing_extra
from operators.arrays import Object
from operators.optics.samples import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    PHOTOGRAPHS,
    Shape,
    Texture,
    object_from_texture,
    texture,
    texture_from_image,
    warped,
)

if TYPE_CHECKING:
    from launch.training.recipe_optics import MaterialRecipe


def check_family(family: str) -> None:
    """Raises ValueError, which lists them, if there is no such family of textures or photographs."""
    if family not in (names := (*FAMILIES, *HELD_OUT_FAMILIES, *PHOTOGRAPHS)):
        raise ValueError(f"unknown family of samples {family!r}; choose one of {', '.join(names)}")


def draw_texture(family: str, shape: Shape, rng: np.random.Generator) -> Texture:
    """Returns one random texture, (row, col) float32 in [0, 1].

    Parameters
    ----------
    family : str
        Of `operators.optics.samples.texture`, or `natural` or `natural_unseen`.
    shape : (int, int)
        Rows and columns, pixels.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        If the family is unknown, or needs scikit-image and it is not installed.
    """
    if family not in PHOTOGRAPHS:
        return texture(family, shape, rng)
    return texture_from_image(_photograph(str(rng.choice(PHOTOGRAPHS[family]))), shape, rng)


def draw_textures(
    families: Sequence[str],
    n_textures: int,
    shape: Shape,
    warped_share: float,
    rng: np.random.Generator,
    n_processes: int = 1,
) -> Iterator[Texture]:
    """Yields random textures, the families in turn, at 20 to 50 ms each and process.

    Each has a random stream of its own, so they are the same from any number of processes.

    Parameters
    ----------
    families : sequence of str
        As `draw_texture` takes them.
    n_textures : int
    shape : (int, int)
        Rows and columns, pixels.
    warped_share : float
        Share that is bent at random, 0 to 1.
    rng : numpy.random.Generator
    n_processes : int
        With more than one, a script that calls this needs `if __name__ == "__main__"`.
    """
    draw = partial(_draw_warped, shape, warped_share)
    which, streams = itertools.islice(itertools.cycle(families), n_textures), rng.spawn(n_textures)
    if n_processes == 1:
        yield from map(draw, which, streams)
        return
    context = multiprocessing.get_context("spawn")  # a copy of a process that uses a GPU could not go on
    with ProcessPoolExecutor(n_processes, context) as pool:
        yield from pool.map(draw, which, streams, chunksize=16)


def _draw_warped(shape: Shape, warped_share: float, family: str, rng: np.random.Generator) -> Texture:
    values = draw_texture(family, shape, rng)
    return warped(values, rng) if rng.random() < warped_share else values


def draw_object(family: str, material: "MaterialRecipe", shape: Shape, rng: np.random.Generator) -> Object:
    """Returns a random sample of a family and a material, (row, col) complex64.

    A mixed material takes its phase from a second texture of the family.
    """
    thickness = draw_texture(family, shape, rng)
    is_mixed = material.mixed > 0 and rng.random() < material.mixed
    delay = draw_texture(family, shape, rng) if is_mixed else None
    return object_from_texture(thickness, material.random(rng), delay)


def unseen(family: str) -> str:
    """Returns the family that fresh samples are drawn from: photographs are few, so others stand in."""
    return "natural_unseen" if family == "natural" else family


@cache
def _photograph(name: str) -> Any:
    try:
        import skimage.data
    except ImportError as error:
        raise ValueError(
            f"the family `natural` {missing_extra(error) or error}, or leave it out of the families"
        ) from error
    return getattr(skimage.data, name)()
