"""Which source of positions the configuration names."""

from collections.abc import Callable, Mapping
from pathlib import Path

from stream.documents.config import PositionsConfig
from stream.documents.sources.bluesky import BlueskyDocuments
from stream.documents.sources.detector import DetectorPositions
from stream.documents.sources.growing import GrowingFile
from stream.documents.sources.panda import PandaStream
from stream.documents.sources.panda_json import PandaRelay
from stream.documents.sources.protocol import PositionSource
from stream.documents.sources.pva import pva_positions

SOURCES: Mapping[str, Callable[[PositionsConfig, Path], PositionSource]] = {
    # by `positions.source`; made of the configuration and the folder of scans
    "detector": lambda config, scans: DetectorPositions(config, scans),
    "documents": lambda config, scans: BlueskyDocuments(),
    "growing-file": lambda config, scans: GrowingFile(config),
    "panda": lambda config, scans: PandaStream(config),
    "panda-json": lambda config, scans: PandaRelay(config),
    "pva": lambda config, scans: pva_positions(config),
}


def source_of(config: PositionsConfig, scans: Path) -> PositionSource | None:
    """Returns the source that the configuration names, None where a file gives the same to every scan.

    Raises
    ------
    ValueError
        If it cannot be used as it is configured.
    """
    return SOURCES[config.source](config, scans) if config.source in SOURCES else None
