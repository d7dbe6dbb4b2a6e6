"""A series of the detector while it is open: what is known of it, and whether it is over."""

from stream.detector.config import DetectorConfig
from stream.detector.protocol import SeriesMessage, StartMessage
from stream.stages.ingest.recording import Recording

UNKNOWN = -1  # how many frames were announced


class Series:
    """A series of the detector while it is open; its recording exists once the kind of frame is known."""

    def __init__(self, series_id: int, series_uid: str | None) -> None:
        self.series_id, self.series_uid = series_id, series_uid
        self.key = SeriesMessage(series_id=series_id, series_unique_id=series_uid).key
        self.start: StartMessage | None = None
        self.recording: Recording | None = None
        self.n_announced = UNKNOWN
        self.is_joined = False  # it began with a frame: its start was missed, as far as is known
        self.is_resumed = False  # an earlier process began it, and nothing of it has come since
        self.last_at: float | None = None  # when the last frame came
        self.end_at: float | None = None  # when the end message came
        self.superseded_at: float | None = None  # when the start of another series came

    @property
    def n_known(self) -> int:
        """One more than the largest number of a frame that has come or was announced."""
        recording = self.recording
        return max(self.n_announced, recording.head if recording else 0)

    @property
    def may_be_over(self) -> bool:
        """Whether a message of another series need not be doubted."""
        return self.end_at is not None or self.is_complete or self.is_resumed

    @property
    def is_complete(self) -> bool:
        """Whether every announced frame is here, and none is missing below the last."""
        if self.n_announced == UNKNOWN:
            return False
        n_seen, head = (self.recording.n_seen, self.recording.head) if self.recording else (0, 0)
        return n_seen >= max(self.n_announced, head)

    @property
    def is_longer_than_announced(self) -> bool:
        """Whether what was announced is not to be believed."""
        return self.recording is not None and UNKNOWN < self.n_announced < self.recording.head

    def quiet_s(self, now: float) -> float:
        """Returns how long nothing has come that concerns the series, seconds."""
        moments = (self.last_at, self.end_at, self.superseded_at)
        return now - max((at for at in moments if at is not None), default=now)

    def is_over(self, now: float, config: DetectorConfig, *, heeds_silence: bool = True) -> bool:
        """Whether nothing more is to be expected; a feed heeds silence itself."""
        if self.end_at is not None and self.is_complete:
            return True
        quiet_s = self.quiet_s(now)
        is_ended = self.end_at is not None or self.superseded_at is not None
        if is_ended or (self.is_complete and not self.is_longer_than_announced):
            return quiet_s >= config.end_grace_s
        return heeds_silence and 0 < config.silence_s <= quiet_s
