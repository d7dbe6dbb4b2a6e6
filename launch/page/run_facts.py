"""What the page says of its run beside the live image: what every stage does, and what happened."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from launch.page.status import MOST_NAMED
from stream.record.events import Event, EventReader
from stream.record.run_state import ProcessState, StateReader
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
    processes : callable
        Returns the processes of the run, none where nobody tells.
    """

    state: Callable[[], RunState | None] = lambda: None
    events: Callable[[], list[Event]] = list
    processes: Callable[[], tuple[ProcessState, ...]] = tuple

    @classmethod
    def of(cls, folder: Path, rendezvous: Path) -> Self:
        """Returns those of the run in `folder` whose short-lived folder is `rendezvous`."""
        read = StateReader(rendezvous)
        return cls(state=read, events=EventReader(folder), processes=read.processes)

    def as_json(self, state: RunState | None) -> dict[str, Any]:
        """Returns "stages", "before" and "events" of the page's state; JSON can hold all of it."""
        stages = state.stages if state is not None else ()
        return {
            "stages": msgspec.to_builtins(stages),
            "before": [] if state is None else _before(state),
            "events": msgspec.to_builtins(self.events()),
        }


def _before(state: RunState) -> list[dict[str, str]]:
    """Return what there is to tell of scans before the running one, in rows like those of the stages."""
    first, n_more = state.finishing[:MOST_NAMED], len(state.finishing[MOST_NAMED:])
    rows = [{"name": scan.name, "text": f"being finished: {scan.text}", "level": "busy"} for scan in first]
    if n_more:
        rows.append({"name": f"{n_more} more", "text": "being finished", "level": "busy"})
    for scan in state.finished[-1:]:
        text = f"finished: {scan.text}" + f"; {scan.result}" * bool(scan.result)
        rows.append({"name": scan.name, "text": text, "level": "done"})
    return rows
