"""What the page says of its run beside the live image: what every stage does, and what happened."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from stream.record.events import Event, EventReader
from stream.record.run_state import StateReader
from stream.wire.messages import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Reads a run's own files, which tell the truth also while the live image is silent.

    Attributes
    ----------
    state : callable
        Returns how the run stands, None where nobody tells.
    events : callable
        Returns what happened, the newest last.
    """

    state: Callable[[], RunState | None] = lambda: None
    events: Callable[[], list[Event]] = list

    @classmethod
    def of(cls, folder: Path, rendezvous: Path) -> Self:
        """Returns those of the run in `folder` whose short-lived folder is `rendezvous`."""
        return cls(state=StateReader(rendezvous), events=EventReader(folder))

    def as_json(self, state: RunState | None) -> dict[str, Any]:
        """Returns "stages" and "events" of the page's state; JSON can hold all of it."""
        stages = state.stages if state is not None else ()
        return {"stages": msgspec.to_builtins(stages), "events": msgspec.to_builtins(self.events())}
