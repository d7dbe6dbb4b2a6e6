"""A server of live images for tests: the stitcher's door without a stitcher behind it."""

import threading
import time
from collections.abc import Sequence
from typing import Any, Self

import msgspec
import numpy as np

from operators.geometry import Bounds
from stream.live.tile_store import TileStore
from stream.wire.codec import decode, encode
from stream.wire.handshake import answer_to, rejection
from stream.wire.messages import Ask, Hello, ImageFigures, NoNews, ObjectUpdate, RunState
from stream.wire.sockets import Endpoint, EndpointError, Socket

TILE_PX = 16


def _bound(address: str, **access: Any) -> Socket:
    """A door; an address given up a moment ago may take another moment to be free."""
    deadline = time.monotonic() + 5.0
    while True:
        try:
            return Socket("ROUTER", Endpoint(address=address, bind=True, **access))
        except EndpointError:
            if time.monotonic() > deadline:
                raise


class FakeDoor:
    """Answers clients as the stitcher does; `publish` makes the next version.

    In a `with` block a thread answers; without one the test calls `turn` itself. `access` are keys of an
    Endpoint.
    """

    def __init__(
        self, address: str = "tcp://127.0.0.1:*", *, run_id: str = "run", reject: str = "", **access: Any
    ) -> None:
        self.run_id, self.reject = run_id, reject
        self.heard: list[Any] = []
        self.counts: dict[str, int] = {}
        self.state: RunState | None = None
        self.heartbeat_s = 0.1
        self._lock = threading.Lock()
        self._waiting: dict[bytes, tuple[Ask, float]] = {}
        self._greeted: set[bytes] = set()
        self._update: ObjectUpdate | None = None
        self._path, self._moments = np.zeros((0, 2), np.float32), np.zeros((0, 6), np.float32)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._socket = _bound(address, **access)
        self.address = self._socket.address

    def begin(self, scan: str) -> None:
        """Begins a series."""
        with self._lock:
            self._scan, self._store, self._update, self._version = scan, TileStore(TILE_PX), None, 0

    def publish(
        self,
        object_: np.ndarray,
        *,
        origin: tuple[int, int] = (0, 0),
        bounds: Bounds | None = None,
        path: Any = (),
        moments: Any = (),
        **fields: Any,
    ) -> None:
        """Makes the next version: the tiles under `object_` with its corner at `origin`; 0 is unknown."""
        with self._lock:
            self._version += 1
            window = Bounds(*origin, origin[0] + object_.shape[0], origin[1] + object_.shape[1])
            bounds = bounds or window
            for index in self._store.touched_by(window):
                self._store.put(index, self._tile(index, object_, window), self._version)
            self._path = np.asarray(path, np.float32).reshape(-1, 2)
            self._moments = np.asarray(moments, np.float32).reshape(-1, 6)
            values = {
                **{"object_pixel_m": 1e-8, "frames_seen": 1, "epoch": 0.0, "model": "m", "config_hash": "c"},
                "pattern_px": 64,
                **{"scan": self._scan, "run_id": self.run_id, "version": self._version},
            }
            self._update = ObjectUpdate(
                tile_px=TILE_PX,
                bounds=(bounds.top, bounds.left, bounds.bottom, bounds.right),
                figures=ImageFigures(**values | fields),
            )

    def _tile(self, index: tuple[int, int], object_: np.ndarray, bounds: Bounds) -> dict[str, np.ndarray]:
        grid = self._store.bounds_of(index)
        whole = np.zeros(grid.union(bounds).shape, np.complex64)
        whole[bounds.slices_in(grid.union(bounds))] = object_
        tile = whole[grid.slices_in(grid.union(bounds))]
        known = tile != 0
        return {
            "object": tile,
            "sigma": np.where(known, 0.1, 0).astype(np.float32),
            "photons": np.where(known, 100, 0).astype(np.float32),
            "source": known.astype(np.uint8),
        }

    def turn(self, timeout_s: float = 0.0) -> None:
        """Takes what came and answers what can be answered."""
        parts = self._socket.receive(timeout_s=timeout_s)
        while parts is not None:
            self._take(bytes(parts[0]), parts[1:])
            parts = self._socket.receive()
        with self._lock:
            for who, (ask, since) in list(self._waiting.items()):
                self._answer(who, ask, since)

    def _take(self, who: bytes, parts: Sequence[Any]) -> None:
        message, _ = decode(parts)
        self.heard.append(message)
        match message:
            case Hello():
                self._greeted.add(who)
                self._socket.send([who, *encode(answer_to(message, self.run_id, self.reject))])
            case Ask() if who not in self._greeted:
                self._socket.send([who, *encode(rejection("greet first"))])
            case Ask():
                self._waiting[who] = message, time.monotonic()

    def _answer(self, who: bytes, ask: Ask, since: float) -> None:
        update = self._update
        after = ask.after if update and ask.scan == update.figures.scan else -1
        if update and update.figures.version > after:
            # Frames that come again replace themselves: a server may be one that was started anew.
            frames, told = (np.arange(len(each), dtype=np.int32) for each in (self._path, self._moments))
            buffers = [*self._store.changed_after(after), frames, self._path, told, self._moments]
            update = msgspec.structs.replace(update, state=self.state)
            self._socket.send([who, *encode(update, buffers)])
        elif time.monotonic() - since >= self.heartbeat_s:
            self._socket.send([who, *encode(NoNews(counts=self.counts, state=self.state))])
        else:
            return
        del self._waiting[who]

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.turn(0.01)

    def close(self) -> None:
        """Leaves without a word, as a killed process does."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
