"""Documents onto the wire as bluesky's own publisher puts them, without bluesky."""

from collections.abc import Mapping
from typing import Any

from stream.documents.codec import encode_document
from stream.wire.sockets import Endpoint, Socket


class DocumentPublisher:
    """Publishes documents to a bound subscriber; what nobody hears is lost, so ask `is_heard` first.

    Parameters
    ----------
    endpoint : Endpoint
        Where the position stage is bound.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._socket = Socket("XPUB", endpoint)
        self._is_heard = False

    def is_heard(self, timeout_s: float = 0.0) -> bool:
        """Says whether somebody subscribes, after waiting for it at most `timeout_s`."""
        # An XPUB socket receives the subscriptions of its listeners.
        self._is_heard = self._is_heard or self._socket.receive(timeout_s) is not None
        return self._is_heard

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Publishes one document."""
        self._socket.send([encode_document(name, dict(document))])

    def close(self) -> None:
        """Closes after the last documents have left."""
        self._socket.flush_and_close(5.0)
