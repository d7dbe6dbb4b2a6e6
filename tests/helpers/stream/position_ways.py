"""One way per source by which positions reach the position stage, for tests that hold for all of them."""

import json
import select

import h5py
import numpy as np
import pytest
from p4p import Value

from stream.documents.config import PositionsConfig
from stream.documents.panda_server import PandaServer
from stream.documents.sources.choice import SOURCES
from stream.documents.sources.pva import PvaPositions
from stream.stages.positions import Positions
from tests.helpers.stream.position_stage import start, stop, wire
from tests.helpers.stream.pva import ARRAY, TABLE, HeldPv

Y, X, NUMBER = "INENC1.VAL.Value", "INENC2.VAL.Value", "COUNTER1.OUT.Value"


class Way:
    """Positions of one beamline: `begin`, `send` rows of frames in any order, `end`; then `pass_s`."""

    def __init__(self, scans, folder):
        self.folder, self.now, self.n_runs = folder, 0.0, 0
        self.prepare()
        self.config = PositionsConfig(unit="um", late_s=5.0, **self.settings)
        with pytest.MonkeyPatch.context() as patch:
            if source := self.source_of(self.config):
                patch.setitem(SOURCES, self.config.source, lambda config, scans: source)
            self.stage = Positions(self.config, scans)
        self.stage._source._clock = lambda: self.now

    def source_of(self, config):
        """The source, where it is not the one that the configuration names."""

    def pass_s(self, seconds=1.0):
        for _ in range(4):
            self.now += seconds / 4
            self.stage.idle(self.now)

    def close(self):
        self.stage._source.close()


class Documents(Way):
    def prepare(self):
        self.settings = {"source": "documents"}

    def begin(self):
        self.n_runs += 1
        self.stage.handle(start(f"r{self.n_runs}"))

    def send(self, frames, positions_um):
        data = dict(zip(("stage-y", "stage-x"), positions_um.T.tolist(), strict=True))
        page = {"descriptor": f"r{self.n_runs}-d", "seq_num": (frames + 1).tolist(), "data": data}
        self.stage.handle([wire("event_page", page)])

    def end(self):
        self.stage.handle([stop(f"r{self.n_runs}")])

    def stray(self, positions_um):
        self.send(np.arange(len(positions_um)), positions_um)


class Relay(Way):
    """Chunks of rows without a gap are one message each, two captures a frame."""

    def prepare(self):
        self.settings = {"source": "panda-json", "address": "ipc:///nobody", "y": Y, "x": X}
        self.settings |= {"captures_per_frame": 2}

    def begin(self):
        self.say(msg_type="start", arm_time=None)
        self.n_sent = 0

    def send(self, frames, positions_um):
        for part in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) != 1) + 1):
            both = np.repeat(positions_um[part], 2, axis=0) + np.tile([[-0.01], [0.01]], (len(part), 1))
            first = 2 * int(frames[part[0]])
            datasets = {
                name: {"size": len(both), "starting_sample_number": first, "data": values.tolist()}
                for name, values in zip((Y, X), both.T, strict=True)
            }
            self.say(msg_type="data", frame_number=self.n_sent, datasets=datasets)
            self.n_sent += 1

    def end(self):
        self.say(msg_type="stop", emitted_frames=self.n_sent)

    def stray(self, positions_um):
        self.n_sent = 7
        self.send(np.arange(len(positions_um)), positions_um)

    def say(self, **message):
        self.stage.handle([[json.dumps(message).encode()]])


class Panda(Way):
    """A real connection to a simulated PandA, whose counter says which trigger a capture is of."""

    def prepare(self):
        self.server = PandaServer((Y, X, NUMBER), (), "um")
        self.settings = {"source": "panda", "address": self.server.address, "y": Y, "x": "INENC2.VAL"}
        self.settings |= {"numbers": "COUNTER1.OUT", "first_number": 1}

    def connect(self):
        while not self.server.is_heard(0.01):
            self.stage.idle(self.now)

    def begin(self):
        self.connect()
        self.server.arm()

    def send(self, frames, positions_um):
        self.server.capture(np.column_stack([positions_um, frames + 1.0]))

    def end(self, reason="Ok"):
        self.server.disarm(reason)

    def stray(self, positions_um):
        self.begin()
        self.send(np.arange(len(positions_um)), positions_um)
        self.end("Framing error")

    def pass_s(self, seconds=1.0):
        source = self.stage._source
        while source._socket and source._is_connected and select.select([source._socket], [], [], 0.01)[0]:
            self.stage.idle(self.now)
        super().pass_s(seconds)

    def close(self):
        super().close()
        self.server.close()


class Text(Way):
    def prepare(self):
        path = self.folder / "scan_*.csv"
        self.settings = {"source": "growing-file", "growing_path": path, "numbers": "frame"}

    def begin(self):
        self.n_runs += 1
        self.write("frame,x,y\n")

    def send(self, frames, positions_um):
        self.write(
            "".join(f"{n},{x!r},{y!r}\n" for n, (y, x) in zip(frames, positions_um.tolist(), strict=True))
        )
        self.pass_s(0.4)

    def end(self):
        self.pass_s(2.0)

    def stray(self, positions_um):
        self.send(np.arange(len(positions_um)), positions_um)

    def write(self, text):
        with (self.folder / f"scan_{self.n_runs}.csv").open("a") as file:
            file.write(text)


class Hdf5(Text):
    def prepare(self):
        path = self.folder / "scan_*.h5"
        self.settings = {"source": "growing-file", "growing_path": path, "numbers": "frame"}
        self.settings |= {"y": "/positions:0", "x": "/positions:1"}

    def begin(self):
        self.n_runs += 1
        self.file = h5py.File(self.folder / f"scan_{self.n_runs}.h5", "w", libver="latest")
        self.file.create_dataset("positions", (0, 2), "f8", maxshape=(None, 2), chunks=(16, 2))
        self.file.create_dataset("frame", (0,), "i8", maxshape=(None,), chunks=(16,))
        self.file.swmr_mode = True

    def send(self, frames, positions_um):
        for name, values in (("frame", frames), ("positions", positions_um)):
            dataset = self.file[name]
            dataset.resize(len(dataset) + len(values), axis=0)
            dataset[-len(values) :] = values
            dataset.flush()
        self.pass_s(0.4)

    def end(self):
        super().end()
        self.file.close()

    def stray(self, positions_um):
        self.file = h5py.File(self.folder / f"scan_{self.n_runs}.h5", "r+", libver="latest")
        super().stray(positions_um)
        self.file.close()


class PvArrays(Way):
    """Two PVs whose arrays hold all that is known of the scan, NaN where nothing is."""

    def prepare(self):
        self.pvs = [HeldPv("T:Y"), HeldPv("T:X")]
        self.settings = {"source": "pva", "pvs": [pv.name for pv in self.pvs]}
        self.known = np.full((0, 2), np.nan)

    def source_of(self, config):
        return PvaPositions(config, self.pvs)

    def begin(self):
        self.known = np.full((0, 2), np.nan)
        self.post()

    def send(self, frames, positions_um):
        n_more = max(int(frames.max()) + 1 - len(self.known), 0)
        self.known = np.append(self.known, np.full((n_more, 2), np.nan), axis=0)
        self.known[frames] = positions_um
        self.post()

    def end(self):
        pass

    def stray(self, positions_um):
        self.post()

    def post(self):
        for pv, values in zip(self.pvs, self.known.T, strict=True):
            pv.post(Value(ARRAY, {"value": values}))
        self.stage.idle(self.now)


class PvTable(PvArrays):
    """A table whose updates hold what is new, with the numbers of its frames."""

    def prepare(self):
        self.pvs = [HeldPv("T:TABLE")]
        self.settings = {"source": "pva", "pvs": ["T:TABLE"], "numbers": "frame"}

    def begin(self):
        self.pvs[0].post(Value(TABLE, {}))

    def send(self, frames, positions_um):
        y, x = positions_um.T
        self.pvs[0].post(Value(TABLE, {"value": {"frame": frames.astype("i4"), "y": y, "x": x}}))
        self.stage.idle(self.now)

    def stray(self, positions_um):
        self.send(np.arange(len(positions_um)), positions_um)


WAYS = {
    "documents": Documents,
    "panda-json": Relay,
    "panda": Panda,
    "csv": Text,
    "hdf5": Hdf5,
    "pva": PvArrays,
    "pva table": PvTable,
}
