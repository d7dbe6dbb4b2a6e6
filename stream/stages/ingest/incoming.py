"""What the detector says, out of the messages of its socket or from a feed; what is neither is refused."""

from collections.abc import Callable, Iterable, Sequence

from stream.detector.config import DetectorConfig
from stream.detector.dialects import DIALECTS, FEEDS
from stream.detector.protocol import DetectorMessage, DetectorMessageError, ImageMessage, StartMessage
from stream.stages.stage import Inlet
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint

MAX_FRAMES = 10_000_000  # of a series; numbers from here on are damage, not frames


class Incoming:
    """Understands one detector.

    Parameters
    ----------
    config : DetectorConfig
    refuse : callable
        Gets a sentence for each message that is none.
    relay : Endpoint, optional
        Where another process of the run passes on what it does not deal with.

    Attributes
    ----------
    inlet : Inlet or None
        The socket, None where there is a feed.

    Raises
    ------
    ValueError, ImportError
        If the feed that is configured cannot be had.
    """

    def __init__(
        self, config: DetectorConfig, refuse: Callable[[str], None], relay: Endpoint | None = None
    ) -> None:
        self._config, self._refuse = config, refuse
        self.inlet: Inlet | None = None
        self._feed = self._dialect = None
        if config.format in FEEDS:
            self._feed = FEEDS[config.format](config)
        else:
            self.inlet = Inlet(config.pattern, (config.endpoint(),), config.queue, config.most_bytes, relay)
            self._dialect = DIALECTS[config.format]()

    def understood(self, messages: Sequence[Sequence[Buffer]]) -> Iterable[DetectorMessage]:
        """Yields what messages of the socket say."""
        if self._dialect is None:
            return
        for parts in messages:
            try:
                message = self._dialect.decode(parts)
                if message is not None:
                    yield self._checked(message)
            except DetectorMessageError as error:
                self._refuse(str(error))

    def fetched(self) -> list[DetectorMessage]:
        """Returns what has come from the feed."""
        if self._feed is None:
            return []
        try:
            messages = self._feed.receive()
        except DetectorMessageError as error:
            self._refuse(str(error))
            return []
        usable = []
        for message in messages:
            try:
                usable.append(self._checked(message))
            except DetectorMessageError as error:
                self._refuse(str(error))
        return usable

    @property
    def is_fed(self) -> bool:
        """Whether there is a feed, which tells the end of each series."""
        return self._feed is not None

    def resume(self, series_key: str, n_frames: int, n_whole: int) -> None:
        """Goes on with a series that a process before this one has recorded: see `Feed.resume`."""
        if self._feed is not None:
            self._feed.resume(series_key, n_frames, n_whole)

    def close(self) -> None:
        """Lets go of the feed."""
        if self._feed is not None:
            self._feed.close()

    def _checked(self, message: DetectorMessage) -> DetectorMessage:
        if isinstance(message, ImageMessage) and message.image_id >= MAX_FRAMES:
            raise DetectorMessageError(
                f"image {message.image_id} of {message.key}: wanted less than {MAX_FRAMES}"
            )
        if isinstance(message, StartMessage):
            n_images = (message.number_of_images or 0) * self._config.n_triggers
            if n_images > MAX_FRAMES:
                raise DetectorMessageError(
                    f"start of {message.key} announces {n_images} images: wanted {MAX_FRAMES} at most"
                )
        return message
