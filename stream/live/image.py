"""The live image as a client holds it: what one version is, and the tiles it is put together from.

Like the client it runs where nothing else of ptychostream does, so it needs NumPy and the messages only.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.wire.codec import ProtocolError
from stream.wire.messages import ImageFigures, ObjectUpdate

MAX_PIXELS = 1 << 28
_LAYERS = {"object": "<c8", "sigma": "<f4", "photons": "<f4", "source": "|u1"}
_NOTHING = {"sigma": np.inf}  # where no tile has come, if not 0


class LiveImage(ImageFigures, frozen=True, kw_only=True, eq=False):
    """One version of the live image; its arrays are this image's own.

    Its figures (`scan`, `version`, `frames_seen`, `epoch`, `error`, `coverage68` and so on) are those of
    `stream.wire.messages.ImageFigures`, under the same names.

    Attributes
    ----------
    maps : mapping of str to array
        The arrays `object`, `sigma`, `photons` and `source` by name. Each is put together when it is first
        asked for: who follows the figures of a large image does not pay for its pixels.
    path : (frame, 2) float32, absolute object pixels
        Probe centres (y, x) of the frames shown, in frame order.
    moments : (frame, 6) float32
        Of frames that have a position, be they in the image or not, in frame order: probe centre in absolute
        object pixels (y, x), and of the pattern photons, centroid (y, x) and width (`scan_maps`).
    origin_px : (int, int)
        Absolute object pixel (row, col) of element [0, 0].
    age_s : float
        How long ago, when the image was handed out, the server was last heard: nothing newer existed then.
    """

    maps: Mapping[str, NDArray[Any]]
    path: NDArray[np.float32]
    moments: NDArray[np.float32] = msgspec.field(default_factory=lambda: np.zeros((0, 6), np.float32))
    origin_px: tuple[int, int]
    age_s: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every map; none has to be put together for it."""
        return self.maps.shape if isinstance(self.maps, TileMaps) else self.object.shape

    @property
    def object(self) -> NDArray[np.complex64]:
        """Transmission of the sample, (row, col) complex64, 0 where nothing is known yet."""
        return self.maps["object"]

    @property
    def sigma(self) -> NDArray[np.float32]:
        """Standard uncertainty of the phase, (row, col) float32, radians."""
        return self.maps["sigma"]

    @property
    def photons(self) -> NDArray[np.float32]:
        """What fell on each pixel, (row, col) float32, photons."""
        return self.maps["photons"]

    @property
    def source(self) -> NDArray[np.uint8]:
        """Where a pixel is from, (row, col) uint8: 0 nothing known, 1 from the network, 2 refined."""
        return self.maps["source"]

    @property
    def coverage(self) -> NDArray[np.bool_]:
        """The mask (row, col) bool of the pixels about which something is known."""
        return self.source > 0

    def scan_maps(self) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Returns what the patterns show without probe and model, and the side of its cells, object pixels.

        Maps by the names of `operators.mosaic.scan_maps.MAPS`, (row, col) float32, NaN where no frame is
        near: intensity in photons, the gradient of the phase in radians per object pixel, its integral in
        radians, and the width of the pattern in pixels. Cell [0, 0] begins at `origin_px`.
        """
        # Who does without the maps does without these as well.
        from operators.geometry import Bounds
        from operators.mosaic.scan_maps import MAPS, scan_maps

        if not self.moments.size:
            return {name: np.full(self.shape, np.nan, np.float32) for name in MAPS}, 1.0
        top, left = self.origin_px
        bounds = Bounds(top, left, top + self.shape[0], left + self.shape[1])
        return scan_maps(self.moments[:, 2:], self.moments[:, :2], bounds, self.pattern_px)

    def motor_positions(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """Returns where the motors are, (point, 2) float64 in `motors.unit`, when the probe is on `pixels`.

        Parameters
        ----------
        pixels : (point, 2) float, absolute object pixels (y, x)
            Element [row, column] of a map is pixel (row, column) + `origin_px`.

        Raises
        ------
        ValueError
            If the pipeline has not told what its motors' positions mean.
        """
        if self.motors is None:
            raise ValueError("this image does not say what motor positions its pixels are")
        pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
        return pixels * self.motors.pitch + self.motors.origin


class TileMaps(Mapping[str, NDArray[Any]]):
    """The maps of one version, each put together from its tiles when it is first asked for.

    Parameters
    ----------
    bounds : (int, int, int, int)
        Absolute object pixels: top, left, bottom, right.
    tile_px : int
        Side of a tile.
    tiles : dict
        By row and column of tiles, each a map of its layers by name; nobody writes into them.
    """

    def __init__(
        self,
        bounds: tuple[int, int, int, int],
        tile_px: int,
        tiles: Mapping[tuple[int, int], Mapping[str, NDArray[Any]]],
    ) -> None:
        self._bounds, self._tile_px, self._tiles = bounds, tile_px, tiles
        self._ready: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._ready:
            # Two threads that ask at once get the same array: the first that is ready.
            self._ready.setdefault(name, self._put_together(name))
        return self._ready[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_LAYERS)

    def __len__(self) -> int:
        return len(_LAYERS)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of each map."""
        top, left, bottom, right = self._bounds
        return bottom - top, right - left

    def _put_together(self, name: str) -> NDArray[Any]:
        (top, left, _, _), nothing = self._bounds, _NOTHING.get(name, 0)
        layer = (
            np.full(self.shape, nothing, _LAYERS[name]) if nothing else np.zeros(self.shape, _LAYERS[name])
        )
        for (row, column), tile in self._tiles.items():
            _paste(tile[name], layer, row * self._tile_px - top, column * self._tile_px - left)
        return layer


class TiledImage:
    """The tiles of one scan as far as they have come."""

    def __init__(self, update: ObjectUpdate) -> None:
        self.scan, self.version = update.figures.scan, -1
        self._run_id, self._tile_px = update.figures.run_id, update.tile_px
        self._tiles: dict[tuple[int, int], dict[str, NDArray[Any]]] = {}
        self._path, self._moments = _Frames(2), _Frames(6)

    def continues_with(self, update: ObjectUpdate) -> bool:
        """Says whether the tiles of `update` belong beside those already here."""
        is_same = (update.figures.run_id, update.tile_px) == (self._run_id, self._tile_px)
        return is_same and update.figures.version > self.version

    def put(self, update: ObjectUpdate, layers: Mapping[str, NDArray[Any]]) -> LiveImage:
        """Takes the tiles that changed and the frames that are new, and returns the image they complete.

        Parameters
        ----------
        update : ObjectUpdate
            What the server says about the image.
        layers : mapping of str to array
            The update's buffers by name (`checked_buffers`).
        """
        for index, (row, column) in enumerate(layers["tiles"].tolist()):
            # Copies: a whole message must not stay in memory for the one tile of it that never changes.
            self._tiles[row, column] = {name: layers[name][index].copy() for name in _LAYERS}
        self._path.put(layers["frames"], layers["path"])
        self._moments.put(layers["told"], layers["moments"])
        self.version = update.figures.version
        return self._image(update)

    def _image(self, update: ObjectUpdate) -> LiveImage:
        # Tiles are replaced, never written into: a shallow copy stays what it is.
        maps = TileMaps(update.bounds, self._tile_px, dict(self._tiles))
        return LiveImage(
            maps=maps,
            path=self._path.values.copy(),
            moments=self._moments.values.copy(),
            origin_px=update.bounds[:2],
            **msgspec.structs.asdict(update.figures),
        )


class _Frames:
    """A few values of each frame, by number; a frame that comes again replaces itself."""

    def __init__(self, n_values: int) -> None:
        self._numbers = np.zeros(0, np.int32)
        self.values = np.zeros((0, n_values), np.float32)

    def put(self, numbers: NDArray[np.int32], values: NDArray[np.float32]) -> None:
        """Takes more frames, ascending, each once."""
        where = np.searchsorted(self._numbers, numbers)
        is_new = np.append(self._numbers, -1)[where] != numbers
        self.values[where[~is_new]] = values[~is_new]  # the server was started anew
        self._numbers = np.insert(self._numbers, where[is_new], numbers[is_new])
        self.values = np.insert(self.values, where[is_new], values[is_new], axis=0)


def _paste(tile: NDArray[Any], layer: NDArray[Any], top: int, left: int) -> None:
    """Writes the part of `tile` that falls inside `layer` when its corner is put at (top, left)."""
    n_rows, n_columns = tile.shape
    inside = layer[max(top, 0) : max(top + n_rows, 0), max(left, 0) : max(left + n_columns, 0)]
    inside[...] = tile[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]]


def checked_buffers(update: ObjectUpdate, arrays: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Returns the buffers of `update` by name, once they are what the protocol says.

    Raises
    ------
    ProtocolError
        If bounds, number, dtype or shape are not.
    """
    top, left, bottom, right = update.bounds
    if bottom < top or right < left or (bottom - top) * (right - left) > MAX_PIXELS:
        raise ProtocolError(f"an image has the bounds {update.bounds}, expected at most {MAX_PIXELS} pixels")
    names = ObjectUpdate.BUFFERS
    if len(arrays) == len(names) - 2:  # a server that knows no moments yet
        arrays = [*arrays, np.zeros(0, np.int32), np.zeros((0, 6), np.float32)]
    if len(arrays) != len(names):
        raise ProtocolError(f"an image has {len(arrays)} buffers, expected {', '.join(names)}")
    n_tiles, n_frames, n_told = (len(np.atleast_1d(arrays[index])) for index in (0, -4, -2))
    tile_shape = (n_tiles, update.tile_px, update.tile_px)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "tiles": ("<i4", (n_tiles, 2)),
        "frames": ("<i4", (n_frames,)),
        "path": ("<f4", (n_frames, 2)),
        "told": ("<i4", (n_told,)),
        "moments": ("<f4", (n_told, 6)),
    }
    expected |= {name: (dtype, tile_shape) for name, dtype in _LAYERS.items()}
    layers = dict(zip(names, arrays, strict=True))
    for name, layer in layers.items():
        if (layer.dtype.str, layer.shape) != expected[name]:
            raise ProtocolError(
                f"buffer {name!r} of an image is {layer.dtype.str} {layer.shape}, expected {expected[name]}"
            )
    if any((np.diff(layers[name]) <= 0).any() for name in ("frames", "told")):
        raise ProtocolError("the frames of an image are not in the order of their numbers, each once")
    return layers
