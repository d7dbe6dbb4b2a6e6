"""Runs that programs watch, and what these programs read."""

from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from launch.page.metrics.monitor import Monitor
from launch.page.metrics.tally import RunTally
from launch.page.run_facts import RunFacts
from tests.helpers.launch.pages import outcome, viewer

STAGES = ("subscriber", "positions", "inference", "refinement", "stitcher", "recorder", "viewer")
NOBODY = "tcp://127.0.0.1:9"


def watched(folder: Path, **settings: Any) -> Any:
    """A viewer of the run `r`, with its scans and its short-lived files in `folder`; gives its URL."""
    facts = RunFacts.of(folder, folder)
    monitor = Monitor(RunTally(folder / "scans", "r", STAGES), "r", folder, facts)
    return viewer(NOBODY, facts=facts, monitor=monitor, **settings)


async def _asked(url: str, headers: dict[str, str]) -> tuple[int, Any, str]:
    async with ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, answer.headers, await answer.text()


def asked(url: str, **headers: str) -> tuple[int, Any, str]:
    """Status, headers and text of an answer over the loopback."""
    return outcome(_asked(url.replace("0.0.0.0", "127.0.0.1"), headers))


def scraped(text: str, parse: Any = text_string_to_metric_families) -> dict[tuple[str, ...], float]:
    """Every sample by its name without prefix and the values of its labels, in the order of their names."""
    samples = [sample for family in parse(text) for sample in family.samples]
    return {
        (it.name.removeprefix("ptychostream_"), *(it.labels[name] for name in sorted(it.labels))): it.value
        for it in samples
    }
