from multiprocessing import Pipe
from typing import get_args

import msgspec
import numpy as np
import pytest

from launch.offline.tile_process import TileExchange, TileMessage, TileReady, TileState, receive, send
from stream.wire.codec import ProtocolError
from stream.wire.messages import Reject, Stop

MESSAGES = [
    TileReady(n_frames=7, mean_photons=1e5),
    TileExchange(bounds=(-3, 0, 61, 90), epoch=1.0, stop=2.0, n_epochs=24.0, error=0.1),
    TileState(bounds=(-3, 0, 61, 90), error=0.1, n_divergences=0),
    Reject(reason="no"),
]


@pytest.fixture
def pipe():
    here, there = Pipe()
    with here, there:
        yield here, there


def test_every_message_of_a_tile_comes_through_the_pipe_with_its_arrays(pipe):
    here, there = pipe
    assert {type(message) for message in MESSAGES} == set(get_args(TileMessage))
    sent = np.arange(6, dtype=np.complex64).reshape(2, 3)
    for message in MESSAGES:
        send(here, message, [sent])
        arrived, (array,) = receive(there)
        assert msgspec.structs.replace(arrived, arrays=()) == message
        np.testing.assert_array_equal(array, sent)


def test_a_message_of_the_live_protocol_is_none_of_a_tile(pipe):
    here, there = pipe
    send(here, Stop())
    with pytest.raises(ProtocolError, match="Invalid value 'Stop'"):
        receive(there)
