"""A beamline on EPICS alone: frames and positions from PVs, the image as PVs, in the real processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from p4p import Value
from p4p.nt import NTScalar
from p4p.server.raw import SharedPV

from stream.detector.pva.sender import PvaSender
from stream.detector.simulator import Faults, Replay, ReplayConfig
from stream.wire.pva import Monitor, PvServer
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.pva import own_network, served

ARRAY = NTScalar.buildType("ad")
SETTINGS = (
    "detector={format: pva, pv: T:IMAGE, silence_s: 1.5, end_grace_s: 0.3}",
    "positions={source: pva, pvs: [T:Y, T:X], unit: um, late_s: 0.5}",
    "pva={enabled: true, prefix: 'T:LIVE:', interval_s: 0.1}",
)
RATE_HZ = 50.0


@pytest.mark.slow
def test_frames_and_positions_from_pvs_become_the_right_image_and_that_is_a_pv(
    tmp_path: Path, sample: ScannedSample
) -> None:
    lost, unknown = frozenset({3, 40, 41, 77, 90}), [7, 23, 55, 68, 81]
    axes_um = sample.positions_m.T * 1e6
    axes_um[:, unknown] = np.nan
    pvs = {name: SharedPV(initial=Value(ARRAY, {"value": np.empty(0)})) for name in ("T:Y", "T:X")}
    said: list[dict[str, Any]] = []
    with (
        own_network(),
        served(pvs),
        Replay(PvaSender(PvServer(), "T:IMAGE", "bslz4")) as detector,
        Pipeline(tmp_path, sample, *SETTINGS) as pipeline,
        Monitor("T:LIVE:Phase", 100) as viewer,
    ):
        detector.wait_for_receiver()

        def look() -> None:
            for pv, values in zip(pvs.values(), axes_um, strict=True):
                pv.post(Value(ARRAY, {"value": values[: detector.n_sent]}))
            while (update := viewer.receive()) is not None:
                attributes = {one["name"]: one["value"] for one in update[0]["attribute"]}
                said.append(attributes | {"values": update[0]["value"]})

        pipeline.on_turn = look
        config = ReplayConfig(rate_hz=RATE_HZ, faults=Faults(drop=lost))
        detector.play(sample.frames, config, len(sample), is_stopped=pipeline.looks_after)
        detector.n_sent = len(sample)  # all positions come, those of lost frames, too
        pipeline.until(lambda: pipeline.supervisor.scans())
        outcome = pipeline.outcome(pipeline.supervisor.scans()[0].header.series_uid)
        pipeline.until(lambda: bool(said) and said[-1].get("is_final"))

    outcome.assert_accounted(recorded=len(sample) - len(lost), lost=len(lost))
    outcome.assert_recorded_as(sample)
    assert outcome.figures["incomplete"].startswith("lost 5 frames (3, 40-41, 77, 90)")
    assert "no position for 5 frames (7, 23, 55, 68" in outcome.figures["incomplete"]
    assert outcome.error(sample).c < 0.1
    assert said[-1]["scan"] == outcome.scan.name
    assert said[-1]["frames_seen"] == len(sample) - len(lost) - len(unknown)
    assert len({one.get("version") for one in said}) > 3, "it grew while the scan was measured"
    assert np.isfinite(said[-1]["values"]).mean() > 0.5
