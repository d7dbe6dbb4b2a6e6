"""A worker on another machine as the dispatcher sees it, over a real socket."""

import numpy as np
import pytest

from stream.record.scan import State
from stream.remote.inference.service import LEASES, DispatcherShare
from stream.stages.config import NetworkConfig
from stream.stages.inference.dispatcher import Dispatcher
from stream.stages.loop import WorkerLoop
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.inference_bench import InferenceBench
from tests.helpers.stream.scans import make_scan, record


@pytest.fixture
def bench(tmp_path):
    return InferenceBench(tmp_path)


def test_every_lease_arrives_and_every_answer_is_stored_under_its_number(tmp_path, run_folder, bench):
    scan, clock = make_scan(tmp_path / "scans"), Clock()
    numbers = np.arange(len(bench.frames))
    record(scan, numbers, bench.frames)
    door = Endpoint(address=f"ipc://{run_folder}/door", bind=True)
    config = NetworkConfig(weights=bench.weights, batch_size=2, device="cpu")
    dispatcher = Dispatcher(config, bench.optics, door, "run-7", clock)
    loop = WorkerLoop(dispatcher, tmp_path / "scans", clock)
    share = DispatcherShare(Endpoint(address=door.address), "inference-2", lambda name: True, clock)
    most = 0
    with Socket("ROUTER", door, queue=dispatcher.most_unread) as socket:
        for _ in range(500):
            loop.turn()
            while (parts := socket.receive()) is not None:
                for reply in dispatcher.exchange([parts]):
                    socket.send(reply)
            for reply in dispatcher.exchange([]):
                socket.send(reply)
            socket.has_room(0.002)
            share.ask(16)
            clock.now += 0.01
            leases = share.leases()
            most = max(most, len(leases))
            for name, of_lease in leases:
                patches = np.full((len(of_lease), 16, 16), 1j, "<c8") * of_lease[:, None, None]
                sigma = np.ones(patches.shape, "<f2")
                models, good = np.full(len(of_lease), 7, "<u8"), np.ones(len(of_lease), "|u1")
                share.answer(name, of_lease, [patches.astype("<c8"), sigma, models, good])
            if (scan.states("inference") == State.DONE).all():
                break
        share.close()
    assert (scan.states("inference") == State.DONE).all()
    assert most == LEASES
    np.testing.assert_array_equal(scan.column("patches").read(numbers)[:, 3, 4].imag, numbers)
    assert set(scan.column("worker").read(numbers).tolist()) == {2}
