"""The report of a run as JSON, for programs that want figures without Prometheus."""

from typing import Any

import msgspec

from launch.page.metrics.monitor import ProcessReport, Report
from launch.page.metrics.tally import IGNORED, LISTENERS
from stream.plain_json import plain_json
from stream.record.account import shares


def status_json(report: Report) -> bytes:
    """Returns the report, JSON; what is not known is null."""
    reading = report.reading
    return plain_json(
        {
            "run_id": report.run_id,
            "level": report.status.level,
            "text": report.status.text,
            "keeps_up": report.keeps_up,
            "behind": report.behind,
            "scan": reading.scan,
            "counts": reading.counts,
            "shares": shares(reading.counts) if reading.counts else {},
            "rates": reading.rates,
            "scans": {
                "begun": reading.n_begun,
                "finished": reading.n_over,
                "receiving": reading.n_receiving,
                "refused": report.n_refused,
            },
            "images": reading.n_images,
            "last_frame_s": report.last_frame_s or None,
            "frames": _frames(report),
            "workers": {f"inference-{number}": n for number, n in sorted(reading.by_worker.items())},
            "ignored": {
                stage: {name: reading.ignored.get((stage, name), 0) for name in IGNORED}
                for stage in LISTENERS
            },
            "latency": {
                stage: {"up_to_s": times.up_to(), "total_s": times.total_s}
                for stage, times in reading.times.items()
                if stage in reading.accounts
            },
            "stages": msgspec.to_builtins(report.stages),
            "processes": [_process(process) for process in report.processes],
            "disk": {
                "folder": str(report.folder),
                "free_bytes": report.free_bytes,
                "size_bytes": report.size_bytes,
            },
            "clients": report.clients,
            "strangers": report.strangers,
        }
    )


def _frames(report: Report) -> dict[str, dict[str, Any]]:
    """Return the account of all scans of the run by stage, with what waits for each."""
    waiting = report.reading.waiting
    return {
        stage: msgspec.structs.asdict(of_stage) | {"backlog": waiting.get(stage, 0)}
        for stage, of_stage in report.reading.accounts.items()
    }


def _process(process: ProcessReport) -> dict[str, Any]:
    state = process.state
    return {
        "name": state.name,
        "pid": state.pid,
        "is_running": state.is_running,
        "restarts": state.n_restarts,
        "heard_s": state.heard_s or None,
        "resident_bytes": process.resident_bytes,
    }
