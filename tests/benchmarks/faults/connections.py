"""Strangers and crowds at the doors of a run: connections that mean nothing, many clients, wrong keys."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from stream.live.client import LiveReconstruction
from stream.live.image import LiveImage
from stream.live.server import Door
from stream.live.tile_store import LAYERS, TileStore
from stream.wire.codec import Buffer, encode
from stream.wire.handshake import greeting
from stream.wire.keys import create_keys
from stream.wire.messages import Ask
from stream.wire.sockets import NO_HANDSHAKE, WRONG_KEY, Endpoint, Socket, wait_for_message
from tests.benchmarks.figures import Figures
from tests.helpers.letter import scan_sample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.scans import UPDATE

N_GARBAGE, N_SLOW, N_KEPT_OPEN = 1500, 200, 100
N_CLIENTS, VERSIONS_HZ, MOST_PUBLISH_MS = 50, 10.0, 20.0
TILES, TILE_PX = 8, 64  # that a version brings
PATIENCE_S, BRIEFLY_S = 5.0, 0.02


def garbage(folder: Path, in_full: bool) -> Figures:
    """Connections that send what is no protocol, and requests that never end, while a scan runs."""
    n, n_slow = (N_GARBAGE, N_SLOW) if in_full else (60, 20)
    sample = scan_sample()
    with Pipeline(folder, sample, "viewer.enabled=true", "viewer.port=0") as pipeline:
        page = pipeline.supervisor.address("viewer")
        doors = [pipeline.live_address, pipeline.supervisor.address("positions")]
        pipeline.until(lambda: pipeline.supervisor.is_ready)
        with _slow_requests(page, n_slow):
            for door in doors:
                _knock(door, n)
            with LiveReconstruction(pipeline.live_address, follow=True) as live:
                images: list[LiveImage] = []
                pipeline.on_turn = lambda: images.extend(filter(None, [live.poll()]))
                outcome = pipeline.run(sample, "besieged")
                pipeline.until(lambda: images and images[-1].is_final)
            began = time.monotonic()
            with urlopen(page, timeout=PATIENCE_S) as answer:
                status = answer.status
            answered_s = time.monotonic() - began
        n_restarts = pipeline.supervisor.n_restarts
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    return {
        "passed": status == 200 and n_restarts == 0 and outcome.figures["is_complete"],
        "connections": n * len(doors),
        "slow_requests": n_slow,
        "restarts": n_restarts,
        "page_answered_s": answered_s,
        "found": f"{n} at each of {len(doors)} doors, {n_slow} slow requests: scan complete, page after "
        f"{answered_s:.2f} s",
    }


def _place(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or 0


def _knock(address: str, n: int) -> None:
    """Connect so often and send nonsense; some of the connections stay open for a while."""
    rng, held = random.Random(6), list[socket.socket]()
    for _ in range(n):
        held.append(socket.create_connection(_place(address), PATIENCE_S))
        with contextlib.suppress(OSError):  # it may have hung up
            held[-1].sendall(rng.randbytes(rng.randrange(1, 2000)))
        if len(held) > N_KEPT_OPEN:
            held.pop(0).close()
    for connection in held:
        connection.close()


@contextlib.contextmanager
def _slow_requests(url: str, n: int) -> Iterator[None]:
    """So many requests that send a byte now and then and never come to their end."""
    held = [socket.create_connection(_place(url), PATIENCE_S) for _ in range(n)]
    stopping = threading.Event()

    def drip() -> None:
        for byte in b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 10_000:
            for connection in held:
                with contextlib.suppress(OSError):
                    connection.send(bytes([byte]))
            if stopping.wait(0.1):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        for connection in held:
            connection.close()


def many_clients(folder: Path, in_full: bool) -> Figures:
    """Fifty clients that ask for every version: how long it takes until all have been sent one.

    It is the time of the publisher's thread, from the new version to the last client's answer in ZeroMQ's
    hands; the clients, which live in the same process, read afterwards, until each has its answer.
    """
    n_versions = 300 if in_full else 20
    taken_s, cpu_s, arrived_s = np.array(list(_versions_sent(n_versions))).T
    p50, p99 = np.percentile(taken_s, [50, 99]) * 1e3
    n_bytes = TILES * TILE_PX**2 * sum(np.dtype(dtype).itemsize for dtype in LAYERS.values())
    return {
        "passed": bool(p99 <= MOST_PUBLISH_MS),
        "clients": N_CLIENTS,
        "versions": n_versions,
        "bytes_per_version": n_bytes,
        "publish_ms_p50": float(p50),
        "publish_ms_p99": float(p99),
        "publish_cpu_ms_p50": float(np.median(cpu_s)) * 1e3,
        "arrived_ms_p50": float(np.median(arrived_s)) * 1e3,
        "found": f"{n_bytes / 1e3:.0f} kB to each of {N_CLIENTS}: median {p50:.1f}, 99 % {p99:.1f} ms",
    }


def _versions_sent(n_versions: int) -> Iterator[tuple[float, float, float]]:
    """Yield of each version how long it took until all were sent it, of the processor, until all had it."""
    version, store = 1, TileStore(TILE_PX)
    layers = {name: np.zeros((TILE_PX, TILE_PX), dtype) for name, dtype in LAYERS.items()}
    door = Door(
        "run",
        lambda scan, after: (UPDATE, store.changed_after(after)) if after < version else None,
        time.monotonic,
        newest=lambda: version,
    )
    with contextlib.ExitStack() as held:
        server = held.enter_context(Socket("ROUTER", Endpoint(address="tcp://127.0.0.1:*", bind=True)))
        here = Endpoint(address=server.address)
        clients = [held.enter_context(Socket("DEALER", here)) for _ in range(N_CLIENTS)]

        def serve() -> int:
            replies = door.exchange(list(iter(server.receive, None)))
            return sum(map(server.send, replies))

        def hear() -> None:
            for client in clients:
                while client.receive(PATIENCE_S) is None:
                    serve()

        def ask(question: list[Buffer]) -> None:
            for client in clients:
                client.send(question, PATIENCE_S)

        ask(encode(greeting("client")))
        n_greeted = 0
        while n_greeted < N_CLIENTS:
            wait_for_message([server], PATIENCE_S)
            n_greeted += serve()
        hear()
        for _ in range(n_versions):
            began = time.monotonic()
            ask(encode(Ask(scan="0000-a", after=version)))
            while len(door._waiting) < N_CLIENTS:
                wait_for_message([server], PATIENCE_S)
                serve()
            version += 1
            for row in range(TILES):
                store.put((row, 0), layers, version)
            published, before_s = time.perf_counter(), time.thread_time()
            n_sent = serve()
            taken_s, cpu_s = time.perf_counter() - published, time.thread_time() - before_s
            assert n_sent == N_CLIENTS, f"{n_sent} of {N_CLIENTS} clients were sent version {version}"
            hear()
            yield taken_s, cpu_s, time.perf_counter() - published
            time.sleep(max(1 / VERSIONS_HZ - (time.monotonic() - began), 0.0))


def strangers(folder: Path, in_full: bool) -> Figures:
    """A client with a key that is not allowed, and one without: no message gets through, each is counted."""
    server, client, stranger = (create_keys(folder / name, name) for name in ("server", "client", "stranger"))
    allowed = folder / "allowed"
    allowed.mkdir()
    (allowed / "client.key").write_bytes(client.with_suffix(".key").read_bytes())
    here = Endpoint(address="tcp://127.0.0.1:*", bind=True, key=server, peers=allowed)
    n, n_in = 50 if in_full else 3, 0
    with Socket("PULL", here) as door:

        def knock(key: Path | None) -> bool:
            """Says whether a message came in; waits for that, or until who knocked is counted."""
            peers = server.with_suffix(".key") if key else None
            before, deadline = door.strangers, time.monotonic() + PATIENCE_S
            with Socket("PUSH", Endpoint(address=door.address, key=key, peers=peers)) as knocking:
                knocking.send([b"let me in"], PATIENCE_S)
                while door.strangers == before and time.monotonic() < deadline:
                    if door.receive(BRIEFLY_S) is not None:
                        return True
            return False

        for _ in range(n):
            n_in += knock(stranger) + knock(None)
        is_open = knock(client)
        counted = door.strangers
    return {
        "passed": n_in == 0 and is_open and min(counted.values()) >= n,
        "strangers": 2 * n,
        "strangers_in": n_in,
        **counted,
        "found": f"{n_in} of {2 * n} strangers got in, who is allowed did; counted: wrong keys "
        f"{counted[WRONG_KEY]} times, none {counted[NO_HANDSHAKE]} times",
    }
