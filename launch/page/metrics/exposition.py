"""The report of a run as Prometheus reads it.

Labels are names of stages, processes, states and levels, of which there are few; no scan is one.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from launch.page.metrics.monitor import TO_THE_IMAGE, Report
from stream.record.account import Account
from stream.record.scan import State
from stream.wire.messages import RunLevel, StageLevel

PREFIX = "ptychostream_"
REASONS = [state.name.lower() for state in State if state > State.DONE and state != State.LOST]


def exposition(report: Report, accept: str) -> tuple[bytes, str]:
    """Returns the report as text, and its content type: the best that the header `accept` asks for."""
    registry = CollectorRegistry(auto_describe=False)  # its own: the library's has this process
    registry.register(_Reported(report))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Reported(Collector):
    """What a scrape collects."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        report = self._report
        yield InfoMetricFamily(f"{PREFIX}build", "what is running", {"version": _version()})
        yield from _of_frames(report)
        yield from _of_scans(report)
        yield from _of_stages(report)
        yield from _of_processes(report)
        yield from _of_surroundings(report)


def _of_frames(report: Report) -> Iterator[Metric]:
    accounts = report.reading.accounts
    subscriber = accounts["subscriber"]
    yield _counter("frames_expected", "announced, or come beyond that", subscriber.expected)
    yield _gauge("frames_awaited", "announced and not come yet", subscriber.awaited)
    became = CounterMetricFamily(
        f"{PREFIX}frames", "by what a stage has made of them", labels=["stage", "state"]
    )
    for stage, of_stage in accounts.items():
        for state, n_frames in _became(stage, of_stage).items():
            became.add_metric([stage, state], n_frames)
    yield became
    by_worker = CounterMetricFamily(
        f"{PREFIX}worker_frames", "done by one of several workers of inference", labels=["process"]
    )
    for number, n_frames in sorted(report.reading.by_worker.items()):
        by_worker.add_metric([f"inference-{number}"], n_frames)
    yield by_worker
    pending = {stage: of_stage.pending for stage, of_stage in accounts.items() if stage != "subscriber"}
    yield _gauges("frames_pending", "recorded, and not through the stage", "stage", pending)
    waiting = report.reading.waiting
    yield _gauges("backlog_frames", "ready for the stage, and not through it", "stage", waiting)
    ignored = CounterMetricFamily(
        f"{PREFIX}ignored", "what was sent to a stage and not taken", labels=["stage", "reason"]
    )
    for of_stage_and_reason, n_times in report.reading.ignored.items():
        ignored.add_metric(of_stage_and_reason, n_times)
    yield ignored
    deferred = report.reading.counts.get("deferred", 0)
    yield _gauge("frames_deferred", "of the newest scan, put off by the network for newer ones", deferred)
    last_s = report.last_frame_s
    yield _gauge("last_frame_timestamp_seconds", "when the last frame came, 0 before the first", last_s)
    latency = HistogramMetricFamily(
        f"{PREFIX}latency_seconds", "from the end of the exposure until the stage was done", labels=["stage"]
    )
    for stage, times in report.reading.times.items():
        if stage in accounts:
            latency.add_metric([stage], list(times.up_to().items()), times.total_s)
    yield latency


def _became(stage: str, of_stage: Account) -> dict[str, int]:
    """Return how many frames are in which state, with those in which there are none yet."""
    if stage == "subscriber":
        return {"done": of_stage.recorded, "lost": of_stage.lost}
    return {"done": of_stage.done} | {reason: of_stage.dropped.get(reason, 0) for reason in REASONS}


def _of_scans(report: Report) -> Iterator[Metric]:
    reading = report.reading
    yield _counter("scans", "that have begun", reading.n_begun)
    yield _counter("scans_finished", "of which the results are written", reading.n_over)
    yield _counter("series_refused", "for which there was no room, or that made no sense", report.n_refused)
    yield _gauge("scans_receiving", "of which frames may still come", reading.n_receiving)
    yield _counter("images", "versions of the live image that were published", reading.n_images)


def _of_stages(report: Report) -> Iterator[Metric]:
    yield _gauge("keeping_up", "1 while the image keeps up with the detector", report.keeps_up)
    rows = {row.name: row.level for row in report.stages}
    there = [stage for stage in TO_THE_IMAGE if stage in rows or stage in report.reading.waiting]
    yield _gauges(
        "stage_keeping_up", "1 while the stage does", "stage", {it: it not in report.behind for it in there}
    )
    now = {level: level == report.status.level for level in get_args(RunLevel)}
    yield _gauges("run_level", "1 for the level at which the run is", "level", now)
    of_rows = GaugeMetricFamily(
        f"{PREFIX}stage_level", "1 for the level at which the row of the stage is", labels=["stage", "level"]
    )
    for name, at_level in rows.items():
        for level in get_args(StageLevel):
            of_rows.add_metric([name, level], level == at_level)
    yield of_rows


def _of_processes(report: Report) -> Iterator[Metric]:
    states = {process.state.name: process.state for process in report.processes}
    up = {name: state.is_running for name, state in states.items()}
    yield _gauges("process_up", "1 while there is one", "process", up)
    restarts = CounterMetricFamily(f"{PREFIX}process_restarts", "after a death", labels=["process"])
    for name, state in states.items():
        restarts.add_metric([name], state.n_restarts)
    yield restarts
    heard_s = {name: state.heard_s for name, state in states.items()}
    yield _gauges(
        "process_heard_timestamp_seconds", "when it last said anything, 0 before", "process", heard_s
    )
    held = {process.state.name: process.resident_bytes for process in report.processes}
    known = {name: n_bytes for name, n_bytes in held.items() if n_bytes is not None}
    yield _gauges("process_resident_memory_bytes", "memory that it holds", "process", known)


def _of_surroundings(report: Report) -> Iterator[Metric]:
    if report.free_bytes is not None and report.size_bytes is not None:
        yield _gauge("disk_free_bytes", "where the run saves to", report.free_bytes)
        yield _gauge("disk_size_bytes", "where the run saves to", report.size_bytes)
    yield _gauges("clients", "who follow the image", "kind", report.clients)
    strangers = CounterMetricFamily(
        f"{PREFIX}strangers", "connections that were not let in", labels=["door", "reason"]
    )
    for door, by_reason in report.strangers.items():
        for reason, n_times in by_reason.items():
            strangers.add_metric([door, reason], n_times)
    yield strangers


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _version() -> str:
    try:
        return version("ptychostream")
    except PackageNotFoundError:
        return "unknown"
