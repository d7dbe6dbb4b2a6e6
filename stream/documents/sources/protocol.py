"""What a source of positions is.

Whatever brings positions becomes the documents of bluesky runs (start, descriptor, event pages, stop), made
by `stream.documents.sources.run.RunDocuments`. What follows is the same for all: which series a run belongs
to, units and signs, the mean of several captures, what is recorded, and what is taken up after a crash.

There are two kinds: a `WireSource` gets the messages of a ZeroMQ socket, a `PolledSource` looks itself.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from stream.documents.codec import Document
from stream.wire.codec import Buffer
from stream.wire.sockets import Kind

Said = tuple[str, Document]  # a document's name and what it says


class PositionSource(Protocol):
    """What brings positions.

    Attributes
    ----------
    hears_ends : bool
        Whether it hears when a run is over; a run of one that does not is over with its frames.
    """

    hears_ends: bool = True

    def resume(self, name: str, document: Document) -> None:
        """Takes a document that a process before this one has recorded of a scan that is not over.

        They come in their order, before anything else is asked for: the run that they leave open goes on.
        """
        return

    def finish(self) -> Sequence[Said]:
        """Returns the end of the run that is open, as its series is over; nothing where it hears of that."""
        return ()

    def close(self) -> None:
        """Lets go of files and connections."""
        return


@runtime_checkable
class WireSource(PositionSource, Protocol):
    """A source whose messages come through a socket of ours, from `positions.address`."""

    pattern: Kind  # of that socket

    @abstractmethod
    def decode(self, parts: Sequence[Buffer]) -> Sequence[Said]:
        """Returns the documents that one message makes.

        Raises
        ------
        DocumentError
            If it is none of this source's messages.
        """


@runtime_checkable
class PolledSource(PositionSource, Protocol):
    """A source without a socket of ours: it looks itself.

    Attributes
    ----------
    waits_for : str
        What is not there, after the last look; empty where nothing is missing.
    """

    waits_for: str = ""

    @abstractmethod
    def receive(self) -> Sequence[Said]:
        """Returns the documents of what has come since it was asked last, some thousand frames at most.

        It never waits; nothing is returned where nothing has come by now.

        Raises
        ------
        DocumentError
            If something came that cannot be positions; what follows it is read when it is asked again.
        """
