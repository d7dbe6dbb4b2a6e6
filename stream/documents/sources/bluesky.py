"""Documents as bluesky's own publisher sends them."""

from collections.abc import Sequence

from stream.documents.codec import decode_document
from stream.documents.sources.protocol import Said, WireSource
from stream.wire.codec import Buffer


class BlueskyDocuments(WireSource):
    """Takes documents as they are."""

    pattern = "SUB"

    def decode(self, parts: Sequence[Buffer]) -> Sequence[Said]:
        """Returns the document of one message."""
        return [decode_document(parts[0] if len(parts) == 1 else b"".join(parts))]
