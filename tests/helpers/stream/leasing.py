"""Workers of inference in the test's own process: a dispatcher's door without sockets."""

from collections import deque

import numpy as np

from stream.stages.inference.leases import worker_name
from stream.wire.codec import decode_with, encode
from stream.wire.handshake import greeting
from stream.wire.lease_messages import DECODER, AskLease, Inferred, Lease
from stream.wire.messages import Welcome

PATCH_PX = 16


class Exchange:
    """Passes messages between a dispatcher and the clients at its door; `dispatcher` may be replaced."""

    def __init__(self, dispatcher):
        self.dispatcher = dispatcher
        self._boxes = {}

    def send(self, client, parts):
        self._deliver(self.dispatcher.exchange([[client, *map(bytes, parts)]]))

    def turn(self):
        self._deliver(self.dispatcher.exchange([]))

    def box(self, client):
        return self._boxes.setdefault(client, deque())

    def _deliver(self, replies):
        for client, *parts in replies:
            self.box(bytes(client)).append([bytes(part) for part in parts])


class FakeConnection:
    """A `Connection` to an `Exchange`."""

    n_made = 0

    def __init__(self, exchange, role):
        self._exchange, self._role = exchange, role
        self.is_welcome, self._client = False, None

    def open(self):
        if self._client is None:
            FakeConnection.n_made += 1
            self._client = f"{self._role} {FakeConnection.n_made}".encode()
            self._exchange.send(self._client, encode(greeting(self._role)))
        return self

    def say(self, message, arrays=(), timeout_s=0.0):
        self.open()
        self._exchange.send(self._client, encode(message, arrays))
        return True

    def hear(self, timeout_s=0.0):
        if self._client is None or not (box := self._exchange.box(self._client)):
            return None
        message, arrays = decode_with(DECODER, box.popleft())
        self.is_welcome |= isinstance(message, Welcome)
        return message, arrays

    def close(self, flush_s=0.0):
        self._client, self.is_welcome = None, False


class HandWorker:
    """A worker without a network that answers when the test says so; a patch holds its frame's number."""

    def __init__(self, exchange, number, n_leases=2, patch_px=PATCH_PX):
        self.name, self._n_leases, self._patch_px = worker_name(number), n_leases, patch_px
        self.connection = FakeConnection(exchange, self.name)
        self.leases, self.heard, self.scan = deque(), [], ""

    def ask(self):
        self.listen()
        self.connection.say(AskLease(scan=self.scan, n_leases=self._n_leases, patch_px=self._patch_px))
        self.listen()

    def join(self):
        """Greet, and get ready for the scan that is open."""
        self.ask()
        self.ask()
        return self

    def listen(self):
        while (heard := self.connection.hear()) is not None:
            message, arrays = heard
            self.heard.append(message)
            if isinstance(message, Lease):
                self.scan = message.scan
                self.leases.extend((message.scan, numbers) for numbers in arrays)
        return [numbers.tolist() for _, numbers in self.leases]

    def answer(self, value=None, **changes):
        """Answer the oldest lease; its patches hold `value`, or the numbers of their frames."""
        self.listen()
        scan, numbers = self.leases.popleft()
        arrays = self.arrays(numbers, value) | changes
        self.connection.say(Inferred(scan=scan), list(arrays.values()))
        return numbers.tolist()

    def arrays(self, numbers, value=None):
        shape = len(numbers), self._patch_px, self._patch_px
        values = numbers if value is None else np.full(len(numbers), value)
        return {
            "numbers": numbers,
            "patches": np.broadcast_to(values[:, None, None], shape).astype(np.complex64),
            "sigma": np.full(shape, 0.1, np.float16),
            "models": np.full(len(numbers), 7, np.uint64),
            "good": np.ones(len(numbers), np.uint8),
        }
