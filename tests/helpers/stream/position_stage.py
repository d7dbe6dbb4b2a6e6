"""The position stage with a detector and documents beside it, all in the hands of a test."""

import numpy as np

from stream.documents.codec import encode_document
from stream.record.scan import Scan, ScanHeader, State
from stream.stages.positions import Positions, PositionsConfig

N = 40
TRUTH_M = np.stack([np.arange(2000) * 1e-6, np.arange(2000) * -2e-6], axis=1)


class Detector:
    """The subscriber's side of a scan, as far as positions see it."""

    def __init__(self, scans, name, n_frames=N, series_id=None):
        index = len(list(scans.glob("*/scan.json")))
        header = ScanHeader(
            series_id=index if series_id is None else series_id,
            series_uid=name,
            frame_shape=(4, 4),
            frame_dtype="<u2",
            started_s=0.0,
        )
        self.scan = Scan.create(scans / f"{index:04d}-{name}", header)
        self.counters = self.scan.counters("subscriber", writable=True)
        self.counters["head"] = n_frames
        self.scan.mark("subscriber", np.arange(n_frames), State.DONE)

    def close(self):
        self.counters["closed"] = 1

    def states(self):
        return Scan(self.scan.folder).states("positions")

    def positions_m(self):
        return Scan(self.scan.folder).column("positions_m").read(np.arange(self.scan.n_frames))

    def counter(self, name):
        return Scan(self.scan.folder).count("positions", name)


def start(uid="r1", **keys):
    fields = ("stage-y", "stage-x")
    descriptor = {
        "uid": f"{uid}-d",
        "run_start": uid,
        "name": "primary",
        "data_keys": {field: {"units": "um"} for field in fields},
        "hints": {"stage": {"fields": list(fields)}},
    }
    return [wire("start", {"uid": uid, **keys}), wire("descriptor", descriptor)]


def page(frames, uid="r1", offset_um=0.0):
    frames = np.asarray(frames)
    y, x = (TRUTH_M[frames] * 1e6 + offset_um).T
    data = {"stage-y": y, "stage-x": x}
    return wire("event_page", {"descriptor": f"{uid}-d", "seq_num": (frames + 1).tolist(), "data": data})


def stop(uid="r1"):
    return wire("stop", {"uid": f"{uid}-s", "run_start": uid})


def wire(name, document):
    return [encode_document(name, document)]


def stage(scans, **changes):
    return Positions(PositionsConfig(**{"unit": "um", **changes}), scans)


def assert_all_positions(detector):
    assert (detector.states() == State.DONE).all()
    np.testing.assert_allclose(detector.positions_m(), TRUTH_M[: detector.scan.n_frames], atol=1e-15)
    assert detector.counter("ended") == detector.counter("closed") == 1
