import signal
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.cli import main
from launch.commands.replay import ReplayOptions, as_counts, replay
from launch.commands.simulate import sample_translation, write_scan
from launch.config.run_file import ResolvedRun
from launch.offline.recorded import RecordedScan, open_recorded
from launch.signals import Interrupted
from stream.detector.dialects import DIALECTS
from stream.detector.protocol import ImageMessage, StartMessage
from stream.documents.position_reader import PositionFields, PositionReader
from stream.record.scan import Scan, ScanHeader, State
from stream.wire import addresses
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.launch.commands import free_address
from tests.helpers.launch.runs import make_run
from tests.helpers.stream.pva import own_network

N_FRAMES = 12
LOST = 3
WITHOUT_POSITION = 5


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    run = make_run(tmp_path, "first")
    run.write()
    return run


@pytest.fixture
def scan_folder(run: ResolvedRun) -> Path:
    """A recorded scan whose pixels hold the frame number, with one lost frame and one unknown position."""
    header = ScanHeader(
        series_id=7,
        series_uid="seven",
        frame_shape=(8, 8),
        frame_dtype="<u2",
        started_s=0.0,
        run_id=run.run_id,
    )
    scan = Scan.create(run.scans / "0000-seven", header)
    numbers = np.delete(np.arange(N_FRAMES), LOST)
    scan.column("frames", writable=True).write(numbers, np.tile(numbers[:, None, None], (1, 8, 8)))
    placed = np.delete(np.arange(N_FRAMES), WITHOUT_POSITION)
    positions = scan.column("positions_m", writable=True)
    positions.write(placed, np.stack([placed * 1e-6, placed * -2e-6], axis=1))
    scan.counters("subscriber", writable=True)["head"] = N_FRAMES
    scan.mark("subscriber", numbers, State.DONE)
    scan.mark("subscriber", np.array([LOST]), State.LOST)
    scan.mark("positions", placed, State.DONE)
    return scan.folder


def inlet() -> Endpoint:
    return Endpoint(address="tcp://127.0.0.1:*", bind=True)


def options(**changes) -> ReplayOptions:
    plain = {
        "format": "dectris-v2",
        "pattern": "PUSH",
        "rate_hz": 0.0,
        "n_frames": None,
        "positions": None,
        "unit": "um",
    }
    return ReplayOptions(**plain | {"endpoint": inlet(), "timeout_s": 0.2} | changes)


def played(scan: RecordedScan, publish=None, **changes) -> list:
    """The detector's messages."""
    dialect = DIALECTS[changes.get("format", "dectris-v2")]()
    with Socket("PULL", inlet()) as pull:
        changes = {"endpoint": Endpoint(address=pull.address), "timeout_s": 20.0} | changes
        replay(scan, options(**changes), publish)
        messages = []
        while (parts := pull.receive(0.5)) is not None:
            messages.append(dialect.decode([bytes(part) for part in parts]))
    return messages


def test_a_scan_folder_reads_as_a_recorded_scan(scan_folder):
    with open_recorded(str(scan_folder)) as scan:
        assert scan.frame_numbers.tolist() == [n for n in range(N_FRAMES) if n != LOST]
        assert scan.frames.shape == (N_FRAMES - 1, 8, 8)
        assert scan.frames[2:5][:, 0, 0].tolist() == [2, 4, 5]
        assert scan.frames[-1][0, 0] == N_FRAMES - 1
        assert scan.positions_m[6].tolist() == [7e-6, -14e-6]
        assert np.isnan(scan.positions_m[4]).all()
        assert scan.geometry is not None and scan.geometry.n_pixels == 64


@pytest.mark.parametrize("dialect", DIALECTS)
def test_documents_name_the_series_as_the_detector_does(scan_folder, dialect):
    documents = {}
    with open_recorded(str(scan_folder)) as scan:
        start, *_ = played(scan, documents.__setitem__, format=dialect)
    named = documents["start"]["detector_series_id"]
    assert named == (start.series_unique_id or str(start.series_id))


def test_a_compression_that_the_detector_has_not_is_refused_before_anybody_is_waited_for(scan_folder):
    with (
        open_recorded(str(scan_folder)) as scan,
        pytest.raises(ValueError, match="bszstd: dectris-v1 has one of bslz4, lz4, none"),
    ):
        replay(scan, options(format="dectris-v1", compression="bszstd"))


def test_lost_frames_stay_lost_and_numbers_stay_theirs(scan_folder):
    with open_recorded(str(scan_folder)) as scan:
        start, *images, _ = played(scan)
    assert isinstance(start, StartMessage) and start.number_of_images == N_FRAMES
    assert start.incident_energy == 8800
    assert start.key.startswith("seven-"), "the number in the folder's name is that of the scan there"
    assert all(isinstance(image, ImageMessage) for image in images)
    pixels = {image.image_id: int(next(iter(image.data.values())).decode()[0, 0]) for image in images}
    assert pixels == {n: n for n in range(N_FRAMES) if n != LOST}


def test_only_the_first_frames_leave_when_asked(scan_folder):
    with open_recorded(str(scan_folder)) as scan:
        messages = played(scan, n_frames=4)
    assert [message.image_id for message in messages[1:-1]] == [0, 1, 2, 4]


@pytest.mark.parametrize("unit", ["um", "mm"])
def test_positions_leave_beside_the_frames_as_documents_in_the_unit_asked_for(scan_folder, unit):
    documents = []
    with open_recorded(str(scan_folder)) as scan:
        start, *_ = played(scan, lambda *document: documents.append(document), rate_hz=50.0, unit=unit)
    names = [name for name, _ in documents]
    assert names[:2] == ["start", "descriptor"] and names[-1] == "stop" and names.count("event_page") >= 2
    assert documents[0][1]["detector_series_id"] == start.series_unique_id
    reader = PositionReader(PositionFields(unit=unit))
    rows = [reader.read(name, document) for name, document in documents]
    numbers, positions = (np.concatenate([row[i] for row in rows]) for i in (0, 1))
    expected = [n for n in range(N_FRAMES) if n not in (LOST, WITHOUT_POSITION)]
    assert numbers.tolist() == expected
    np.testing.assert_allclose(reader.to_metres(positions), np.outer(expected, [1e-6, -2e-6]))


@pytest.mark.parametrize("source", [".", "nowhere.cxi", "scans/0000-gone"])
def test_what_is_no_scan_is_refused_and_not_sought_in_the_store(tmp_path, monkeypatch, source):
    (tmp_path / "demo" / "store").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="neither a file nor a scan folder"), open_recorded(source):
        pass


def test_frames_that_are_no_counts_are_refused():
    assert as_counts(np.array([[3.0]]), "x").dtype == np.uint32
    for frame in (np.array([[0.5]]), np.array([[-1]])):
        with pytest.raises(ValueError, match="values that are no counts"):
            as_counts(frame, "frame 3")


def test_cxi_records_the_motion_of_the_sample():
    np.testing.assert_array_equal(sample_translation(np.array([[1.0, 2.0]])), [[-2.0, -1.0, 0.0]])


def test_a_simulated_scan_replays_from_its_file(tmp_path):
    simulated = simulate_scan(Simulation(n_rows=2, n_columns=3))
    path = tmp_path / "simulated.cxi"
    write_scan(path, simulated, "test")
    with open_recorded(str(path)) as scan:
        np.testing.assert_allclose(scan.positions_m, simulated.positions_m, atol=1e-12)
        np.testing.assert_array_equal(scan.frames[:], simulated.frames)
        np.testing.assert_array_equal(scan.probe, simulated.probe)
        assert scan.geometry.object_pixel_m == pytest.approx(simulated.geometry.object_pixel_m)
        assert len(played(scan)) == 6 + 2
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["truth/object"], simulated.object)


def test_simulating_overwrites_nothing(tmp_path):
    path = tmp_path / "measured.cxi"
    path.write_bytes(b"a week of beamtime")
    with pytest.raises(FileExistsError):
        write_scan(path, simulate_scan(Simulation(n_rows=2, n_columns=2)), "test")
    assert path.read_bytes() == b"a week of beamtime"


def test_a_replay_that_nobody_takes_ends_and_says_so(scan_folder):
    with open_recorded(str(scan_folder)) as scan:
        played = replay(scan, options())
    assert (played.status, played.n_sent, played.n_frames) == (1, 0, N_FRAMES - 1)
    assert played.reason.startswith("nobody has connected to tcp://127.0.0.1:")


def test_a_scan_without_frames_is_not_waited_with(scan_folder):
    with open_recorded(str(scan_folder)) as scan:
        empty = replace(scan, frame_numbers=scan.frame_numbers[:0])
        with pytest.raises(ValueError, match="has no frames: there is nothing to replay"):
            replay(empty, options(timeout_s=1e9))


def test_a_signal_tells_how_many_frames_left_and_is_the_exit_status(scan_folder):
    pages = []

    def publish(name, document):
        pages.extend([document] * (name == "event_page"))
        if len(pages) == 3:
            raise Interrupted(signal.SIGTERM)

    with open_recorded(str(scan_folder)) as scan, Socket("PULL", inlet()) as pull:
        endpoint = Endpoint(address=pull.address)
        played = replay(scan, options(endpoint=endpoint, timeout_s=20.0), publish)
    assert (played.status, played.reason) == (143, "interrupted")
    assert 0 < played.n_sent < played.n_frames


def test_who_waits_for_positions_is_named(scan_folder, caplog, monkeypatch):
    monkeypatch.setattr("launch.commands.replay.MOMENT_S", 0.05)
    monkeypatch.setattr("launch.commands.replay.LISTENER_TIMEOUT_S", 0.1)
    positions = Endpoint(address=free_address())
    with open_recorded(str(scan_folder)) as scan, Socket("PULL", inlet()) as pull:
        replay(scan, options(endpoint=Endpoint(address=pull.address), timeout_s=20.0, positions=positions))
    assert [record.getMessage() for record in caplog.records] == [
        f"nobody takes positions at {positions.address} yet: waiting, for 0.1 s at most",
        f"nobody takes positions at {positions.address}: only frames are sent",
    ]


def test_positions_are_sent_with_keys(monkeypatch, scan_folder, tmp_path):
    given = []
    monkeypatch.setattr(
        "launch.commands.replay.replay", lambda scan, options: given.append(options) or exit(0)
    )
    keys = ["--key", str(tmp_path / "me.key_secret"), "--peers", str(tmp_path / "theirs.key")]
    monkeypatch.setattr("sys.argv", ["ptychostream", "replay", str(scan_folder), *keys])
    with pytest.raises(SystemExit):
        main()
    [options] = given
    assert options.positions == replace(
        Endpoint(address=addresses.POSITIONS), key=tmp_path / "me.key_secret", peers=tmp_path / "theirs.key"
    )
    assert options.endpoint.key is None, "a detector has none"


AS_PVA = ["--as", "pva", "--pv", "T:IMAGE"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--as", "pva"], "needs --pv NAME"),
        ([*AS_PVA, "--rate", "0"], "--rate 0 is for what waits"),
        (["--pv", "T:IMAGE"], "--pv 'T:IMAGE' is for --as pva"),
    ],
)
def test_a_pv_needs_a_name_and_a_rate(call, scan_folder, given, complaint):
    status, out, err = call("replay", str(scan_folder), *given)
    assert (status, out) == (2, "")
    assert complaint in err


def test_a_pv_that_nobody_reads_is_named(call, scan_folder):
    with own_network():
        status, _, err = call("replay", str(scan_folder), *AS_PVA, "--timeout", "0.1", "--no-positions")
    assert status == 1
    assert "frames sent to PV T:IMAGE: nobody has connected to PV T:IMAGE in 0.1 s" in err
