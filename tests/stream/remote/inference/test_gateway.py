"""What the gateway refuses, and what it lets nobody have."""

import msgspec
import numpy as np
import pytest

from stream.remote.answering import NO_NEWS_S
from stream.remote.inference.gateway import Gateway
from stream.remote.messages import (
    DIALECT,
    AskLeases,
    AskPart,
    AskSetup,
    Fetch,
    Lease,
    Leave,
    Part,
    Refused,
    Result,
    Setup,
    Taken,
    Values,
)
from stream.stages.config import NetworkConfig
from stream.wire.codec import encode
from stream.wire.handshake import greeting
from stream.wire.messages import Reject, Stop, Welcome
from tests.helpers.stream.elsewhere import Elsewhere
from tests.helpers.stream.inference_bench import InferenceBench
from tests.helpers.stream.scans import make_scan, record

NUMBERS = np.arange(4)


@pytest.fixture
def scan(tmp_path):
    return make_scan(tmp_path / "scans")


@pytest.fixture
def there(tmp_path, scan):
    bench = InferenceBench(tmp_path)
    record(scan, np.arange(8), bench.frames[:8])
    network = NetworkConfig(weights=bench.weights, device="cpu")
    return Elsewhere(tmp_path / "there", tmp_path / "scans", network, bench.optics)


def leased(there, scan) -> Lease:
    """Lease four frames to a client that is no worker."""
    there.share.waiting = [(scan.name, NUMBERS)]
    (answer, arrays) = there.says(AskLeases(question=5, room=3, patch_px=2))
    np.testing.assert_array_equal(arrays[0], NUMBERS)
    return answer.leases[0]


def result(n=4, side=2, **changes):
    made = {
        "patches": np.ones((n, side, side), "<c8"),
        "sigma": np.ones((n, side, side), "<f2"),
        "models": np.ones(n, "<u8"),
        "good": np.ones(n, "|u1"),
    }
    return list((made | changes).values())


def test_every_answer_has_the_number_of_its_question(there, scan):
    assert isinstance(there.says(AskSetup(question=3))[0], Setup)
    assert there.says(AskSetup(question=4))[0].question == 4
    answer, (values,) = there.says(Fetch(question=9, scan=scan.name, column="frames"), [NUMBERS])
    assert (type(answer), answer.question, values.shape) == (Values, 9, (4, 16, 16))


@pytest.mark.parametrize(
    ("message", "arrays", "reason"),
    [
        (Fetch(scan="../../etc", column="frames"), [NUMBERS], "there is no scan '../../etc'"),
        (Fetch(scan="0000-series/../0000-series", column="frames"), [NUMBERS], "there is no scan"),
        (Fetch(scan="0000-series", column="positions_m"), [NUMBERS], "wanted one of the columns frames"),
        (Fetch(scan="0000-series", column="frames"), [], "wanted the numbers of frames"),
        (Fetch(scan="0000-series", column="frames"), [NUMBERS.astype("<f8")], "wanted the numbers of frames"),
        (Fetch(scan="0000-series", column="frames"), [NUMBERS - 1], "has 8 frames by now"),
        (Fetch(scan="0000-series", column="frames"), [NUMBERS + 5], "has 8 frames by now"),
        (
            Fetch(scan="0000-series", column="frames"),
            [np.zeros(1 << 17, np.int64)],
            "ask for 33554432 at most",
        ),
        (AskPart(sha256="0" * 64, offset=0), [], "no file with SHA-256 0000"),
        (Taken(), [], "a worker asks, and sends no Taken"),
    ],
)
def test_a_question_that_cannot_be_answered_gets_a_reason(there, message, arrays, reason):
    answer, _ = there.says(msgspec.structs.replace(message, question=7), arrays)
    assert (type(answer), answer.question) == (Refused, 7)
    assert reason in answer.reason
    assert there.gateway.n_refused == 1


def test_a_file_is_had_by_its_contents_and_not_beyond_its_end(there):
    setup, _ = there.says(AskSetup())
    weights = setup.files[0]
    answer, (content,) = there.says(AskPart(sha256=weights.sha256, offset=0))
    assert isinstance(answer, Part) and len(content) == weights.n_bytes
    assert "ends before byte" in there.says(AskPart(sha256=weights.sha256, offset=2**50))[0].reason


@pytest.mark.parametrize(
    "arrays",
    [
        result(n=3),
        result(side=3),
        result(sigma=np.ones((4, 2, 2), "<f4")),
        result(models=np.ones(4, "<i8")),
        result()[:3],
        [],
    ],
)
def test_a_result_that_is_none_of_its_lease_is_refused_and_the_lease_stands(there, scan, arrays):
    lease = leased(there, scan)
    assert "a result of 4 frames has" in there.says(Result(lease=lease.lease), arrays)[0].reason
    assert not there.share.made
    assert isinstance(there.says(Result(lease=lease.lease), result())[0], Taken)
    assert set(there.share.made) == {0, 1, 2, 3}


def test_a_patch_that_is_not_finite_is_not_good_whatever_the_worker_says(there, scan):
    patches, sigma = np.ones((4, 2, 2), "<c8"), np.ones((4, 2, 2), "<f2")
    patches[1, 0, 0], sigma[2, 1, 1] = np.nan, np.inf
    there.says(Result(lease=leased(there, scan).lease), result(patches=patches, sigma=sigma))
    assert [int(made[3]) for made in there.share.made.values()] == [1, 0, 0, 1]


def test_a_result_counts_once_and_one_that_nobody_leased_not_at_all(there, scan):
    lease = leased(there, scan)
    for number in (lease.lease, lease.lease, lease.lease + 1, 0):
        assert isinstance(there.says(Result(lease=number), result())[0], Taken)
    assert there.share.n_answers == 1


def test_who_has_not_greeted_or_speaks_another_version_gets_nothing(there):
    assert "greet first" in there.says(AskSetup(), client=b"stranger")[0].reason
    old = msgspec.structs.replace(greeting("inference", DIALECT), schema="older")
    answer, _ = there.says(old, client=b"old")
    assert isinstance(answer, Reject) and "same version of ptychostream" in answer.reason
    assert there.gateway.n_workers == 1


def test_more_workers_than_there_are_numbers_for_are_refused(there):
    assert isinstance(there.says(greeting("inference", DIALECT), client=b"second")[0], Welcome)
    answer, _ = there.says(greeting("inference", DIALECT), client=b"third")
    assert "2 workers are here" in answer.reason
    assert isinstance(there.says(greeting("inference", DIALECT), client=b"w")[0], Welcome)  # it is back


def test_a_worker_that_leaves_or_falls_silent_has_left_its_share(there):
    there.says(Leave())
    assert there.share.is_closed and there.gateway.n_workers == 0
    there.says(greeting("inference", DIALECT))
    there.clock.now += Gateway.gone_s + 0.1
    there.gateway.exchange([])
    assert there.gateway.n_workers == 0


def test_who_asks_for_frames_hears_within_a_moment_that_there_are_none(there):
    assert there.says(AskLeases(question=2, room=3, patch_px=2)) is None
    there.clock.now += NO_NEWS_S
    (reply,) = there.gateway.exchange([])
    assert reply[0] == b"w"


def test_random_bytes_and_mutated_messages_are_refused_and_nothing_worse(there, scan):
    rng = np.random.default_rng(0)
    seeds = [
        encode(Fetch(question=1, scan=scan.name, column="frames"), [NUMBERS]),
        encode(Result(question=1, lease=1000), result()),
        encode(AskLeases(question=1, held=(1, 2), room=2, patch_px=16)),
        encode(greeting("inference", DIALECT)),
        encode(AskPart(sha256="0" * 64, offset=3)),
        encode(Stop()),
    ]
    for _ in range(3000):
        parts = [bytearray(part) for part in seeds[rng.integers(len(seeds))]]
        for _ in range(rng.integers(1, 4)):
            part = parts[rng.integers(len(parts))]
            if len(part):
                part[rng.integers(len(part))] = rng.integers(256)
        if rng.random() < 0.1:
            parts = parts[:-1]
        there.gateway.exchange([[b"w", *map(bytes, parts)]])
    assert isinstance(there.says(AskSetup())[0], Setup)
    assert there.gateway.n_refused > 1000
