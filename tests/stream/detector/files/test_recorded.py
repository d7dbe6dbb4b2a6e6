"""What files hold becomes scans: bit for bit, once, and every frame accounted for."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from stream.detector import dialects
from stream.detector.config import DetectorConfig
from stream.detector.files.feed import FilesFeed
from stream.detector.files.writers import FRAMES_PER_FILE, DectrisFileSender, Hdf5Sender
from stream.record.account import account
from stream.record.scan import Scan, State, scans_in
from stream.stages.ingest.frame_writer import STAGE
from stream.stages.ingest.subscriber import Subscriber
from tests.helpers.recorded_data import SHARED_DATA, needs_shared_data
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.files_feed import FRAMES, N, Read, write

SILENCE_S = 5.0


class Recording:
    """A subscriber of files, and the clock of both."""

    def __init__(self, path: Path, scans: Path, **settings) -> None:
        self.clock, self.scans = Clock(), scans
        config = DetectorConfig(format="files", path=path, silence_s=SILENCE_S, **settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(dialects.FEEDS, "files", lambda config: FilesFeed(config, self.clock))
            self.subscriber = Subscriber(config, scans, self.clock)

    def after(self, seconds: float) -> "Recording":
        until = self.clock.now + seconds
        while self.clock.now < until:
            if not self.subscriber.fetch():
                self.clock.now += 0.1
            self.subscriber.idle(self.clock.now)
        return self

    def scan(self) -> Scan:
        (scan,) = scans_in(self.scans)
        return scan


@needs_shared_data
def test_a_recorded_scan_of_a_beamline_is_taken_bit_for_bit(tmp_path):
    path = SHARED_DATA / "siemens" / "siemens.cxi"
    recording = Recording(path, tmp_path).after(SILENCE_S + 4)
    scan = recording.scan()
    with h5py.File(path) as file:
        frames = file["entry_1/instrument_1/detector_1/data"][:]
        energy_ev = file["entry_1/instrument_1/source_1/energy"][()] / 1.602176634e-19
    np.testing.assert_array_equal(scan.column("frames").read(np.arange(len(frames))), frames)
    told = account(scan, STAGE)
    assert (told.recorded, told.expected, told.pending) == (len(frames), len(frames), 0)
    assert scan.header.energy_ev == pytest.approx(energy_ev)
    assert scan.name.endswith(scan.header.series_uid) and scan.header.series_uid.startswith("siemens-")
    recording.subscriber.close()


def test_a_subscriber_that_is_killed_is_followed_by_one_that_goes_on(tmp_path):
    rest = write(Hdf5Sender(tmp_path / "files"), until=100)
    Recording(tmp_path / "files", tmp_path / "scans").after(1.0)  # and dies without a word
    rest()
    second = Recording(tmp_path / "files", tmp_path / "scans").after(2.0)
    scan = second.scan()
    np.testing.assert_array_equal(scan.column("frames").read(np.arange(N)), FRAMES)
    assert (scan.states(STAGE)[:N] == State.DONE).all()
    second.subscriber.close()


WRITER = """
import sys
from pathlib import Path
from stream.detector.files.writers import Hdf5Sender
from tests.helpers.stream.files_feed import FRAMES, write

rest = write(Hdf5Sender(Path(sys.argv[1])), FRAMES[:30], until=10)
print("begun", flush=True)
sys.stdin.readline()
rest()
print("closed", flush=True)
sys.stdin.readline()
"""


def test_a_file_that_another_process_writes_is_followed(tmp_path):
    """In one process the library shows a reader what its writer has at hand."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "begun\n"
        read = Read(tmp_path).after(1.0)
        assert (read.numbers, read.n_ends) == ([*range(10)], 0)
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "closed\n"
        read.after(1.0).assert_as(FRAMES, range(30))
        assert read.n_ends == 1
        writer.communicate("\n")


def test_frames_of_a_data_file_that_is_missing_are_lost_and_all_others_recorded(tmp_path):
    write(DectrisFileSender(tmp_path / "files"))
    (tmp_path / "files/scan_data_000002.h5").unlink()
    recording = Recording(tmp_path / "files/scan_master.h5", tmp_path / "scans").after(SILENCE_S + 4)
    told = account(recording.scan(), STAGE)
    assert (told.expected, told.recorded, told.lost) == (N, N - FRAMES_PER_FILE, FRAMES_PER_FILE)
    recording.subscriber.close()
