"""A tile on a node: what `launch.offline.tile_process` does in a process here."""

from collections.abc import Sequence

from launch.offline.tile_process import DECODER, REFUSALS, Tile, TileExchange, TileJob
from launch.on_ray.versions import own_version
from stream.wire.codec import decode_with, encode
from stream.wire.handshake import rejection


class TileActor:
    """An actor that refines one tile; what it gets and gives are parts of messages.

    Raises
    ------
    ValueError
        If the node has another version of ptychostream.
    """

    def __init__(self, version: str) -> None:
        if (own := own_version()) != version:
            raise ValueError(f"a node has ptychostream {own}, and this computer {version}")

    def begin(self, job: TileJob) -> list[bytes]:
        """Takes the tile's frames; returns `TileReady`, or `Reject` if it cannot."""
        try:
            self._tile = Tile(job)
        except REFUSALS as error:
            return list(map(bytes, encode(rejection(error))))
        return list(map(bytes, encode(self._tile.ready())))

    def exchange(self, parts: Sequence[bytes]) -> list[bytes]:
        """Takes `TileExchange` and returns `TileState`."""
        exchange, arrays = decode_with(DECODER, parts)
        assert isinstance(exchange, TileExchange)  # noqa: S101 -- nothing else is sent
        return list(map(bytes, encode(*self._tile.exchanged(exchange, arrays))))
