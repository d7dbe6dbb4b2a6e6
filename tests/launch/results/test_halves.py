"""The resolution of a result, measured by a process of its own."""

import time
from pathlib import Path

import pytest

from launch.results import halves
from launch.results.halves import unmeasured


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("""echo '{"resolution_m": 1e-8}'""", {"resolution_m": 1e-8}),
        ("echo it is broken >&2; exit 1", unmeasured("it is broken", Path("scan"))),
    ],
)
def test_the_end_of_a_measurement_is_heard_of_by_who_looks_now_and_then(does, told, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setattr(halves.sys, "executable", str(program))
    measurement, deadline = halves.Measurement(Path("scan"), Path("result")), time.monotonic() + 30
    while (figures := measurement.figures()) is None:
        assert time.monotonic() < deadline
    assert figures == told
