"""What is put into the store: a recorded scan, a frame of it lost and one without position, and documents."""

import time

import numpy as np

from operators.geometry import Geometry
from stream.record.scan import Scan, ScanHeader, State

GEOMETRY = Geometry(energy_ev=9000.0, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=8)
FRAMES = np.random.default_rng(1).integers(0, 500, (10, 8, 8)).astype("<u2")
POSITIONS_M = np.random.default_rng(2).uniform(0, 1e-6, (10, 2))
RECORDED = [0, 1, 2, 4, 5, 6, 7, 8, 9]


def recorded_scan(folder, name="0000-s1"):
    header = ScanHeader(
        series_id=1, series_uid="s1", frame_shape=(8, 8), frame_dtype="<u2", started_s=time.time()
    )
    scan = Scan.create(folder / name, header)
    scan.counters("subscriber", writable=True)["head"] = len(FRAMES)
    scan.column("frames", writable=True).write(RECORDED, FRAMES[RECORDED])
    scan.mark("subscriber", RECORDED, State.DONE)
    scan.mark("subscriber", [3], State.LOST)
    scan.column("positions_m", writable=True).write(np.arange(9), POSITIONS_M[:9])
    scan.mark("positions", np.arange(9), State.DONE)
    return scan


def beamline_documents(uid="r1", is_stopped=True):
    image = {"dtype": "array", "shape": [8, 8], "source": "PV:eiger", "external": "STREAM:"}
    motor = {"dtype": "number", "shape": [], "source": "PV:m", "units": "um"}
    flown = {
        "uid": f"{uid}-d1",
        "run_start": uid,
        "time": 1.0,
        "name": "primary",
        "data_keys": {"stage-y": motor, "eiger": image},
        "object_keys": {"stage": ["stage-y"], "eiger": ["eiger"]},
        "configuration": {},
        "hints": {},
    }
    only_files = {**flown, "uid": f"{uid}-d2", "name": "files", "data_keys": {"eiger": image}}
    resource = {
        "uid": f"{uid}-sr",
        "run_start": uid,
        "data_key": "eiger",
        "mimetype": "application/x-hdf5",
        "uri": "file://far.away/frames.h5",
        "parameters": {},
    }
    page = {
        "uid": [f"{uid}-e{n}" for n in range(3)],
        "descriptor": f"{uid}-d1",
        "seq_num": [1, 2, 3],
        "time": [1.0, 2.0, 3.0],
        "data": {"stage-y": [0.1, 0.2, 0.3]},
        "timestamps": {"stage-y": [1.0, 2.0, 3.0]},
        "filled": {},
    }
    stop = {"uid": f"{uid}-s", "run_start": uid, "time": 4.0, "exit_status": "success", "reason": ""}
    documents = [
        ("start", {"uid": uid, "time": 0.5, "plan_name": "fly"}),
        ("descriptor", flown),
        ("descriptor", only_files),
        ("stream_resource", resource),
        ("event_page", page),
    ]
    return [*documents, ("stop", stop)] if is_stopped else documents
