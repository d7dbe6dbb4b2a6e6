"""A client of a stitcher in the same process: no sockets, the same messages."""

import numpy as np

from stream.live.image import LiveImage, TiledImage, checked_buffers
from stream.stages.stitching.worker import Stitcher
from stream.wire.codec import decode, encode
from stream.wire.handshake import greeting
from stream.wire.messages import Ask, ObjectUpdate


class Watcher:
    """Greets once, and then asks for what it does not have."""

    def __init__(self, stitcher: Stitcher, name: bytes = b"watcher") -> None:
        self.name, self.canvas = name, None
        self.tiles: np.ndarray = np.zeros((0, 2), np.int32)  # that came with the last image
        self.frames: np.ndarray = np.zeros(0, np.int32)
        self.meets(stitcher)

    def meets(self, stitcher: Stitcher) -> None:
        """Go on with another stitcher, as after its restart."""
        self._stitcher = stitcher
        stitcher.exchange([[self.name, *encode(greeting("client"))]])

    def asks(self) -> LiveImage | None:
        """Return the image completed by what is new, None if nothing is."""
        after = self.canvas.version if self.canvas else -1
        scan = self.canvas.scan if self.canvas else ""
        replies = self._stitcher.exchange([[self.name, *encode(Ask(scan=scan, after=after))]])
        messages = [decode(parts) for _, *parts in replies]
        updates = [(update, arrays) for update, arrays in messages if isinstance(update, ObjectUpdate)]
        if not updates:
            return None
        [(update, arrays)] = updates
        layers = checked_buffers(update, arrays)
        if self.canvas is None or self.canvas.scan != update.figures.scan:
            self.canvas = TiledImage(update)
        self.tiles, self.frames = layers["tiles"], layers["frames"]
        return self.canvas.put(update, layers)
