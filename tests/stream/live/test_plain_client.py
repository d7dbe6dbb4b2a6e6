"""The client of sixty lines that the reference shows: what it needs, and that it sees what ours sees."""

import ast
from pathlib import Path

import numpy as np
import pytest

from operators.geometry import Bounds
from stream.live.client import LiveReconstruction
from tests.helpers.stream import plain_client
from tests.helpers.stream.fake_door import TILE_PX, FakeDoor

FILE = Path(plain_client.__file__)


def test_it_has_sixty_lines_at_most_and_imports_nothing_of_ours():
    text = FILE.read_text()
    assert len(text.splitlines()) <= 60
    nodes = list(ast.walk(ast.parse(text)))
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom)]
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"sys", "msgpack", "numpy", "zmq.auth"}


@pytest.mark.parametrize("has_keys", [False, True])
def test_every_version_is_that_of_our_client_byte_for_byte(has_keys, keys):
    rng = np.random.default_rng(3)
    access = {"key": keys.server, "peers": keys.allowed} if has_keys else {}
    ours = {"key": keys.client, "peers": keys.server_public} if has_keys else {}
    with FakeDoor(**access) as door, LiveReconstruction(door.address, follow=True, **ours) as live:
        plain = plain_client.follow(door.address, *reversed(ours.values()))
        # A first image, one that grows over the edge of tiles and beyond what came, one that is patched, and
        # another scan that knows nothing of them.
        for scan, n_pixels, origin, is_final in (
            ("a", (20, 30), (-7, 5), False),
            ("a", (9, 40), (2 * TILE_PX + 3, -11), False),
            ("a", (5, 5), (-6, 6), False),
            ("b", (8, 8), (100, -100), True),
        ):
            if scan == "b" or origin == (-7, 5):
                door.begin(scan)
            object_ = rng.normal(size=n_pixels) + 1j * rng.normal(size=n_pixels)
            room = Bounds(origin[0] - 2, origin[1] - 3, 160, 60)
            door.publish(object_.astype(np.complex64), origin=origin, bounds=room, is_final=is_final)
            figures, maps = next(plain)
            image = next(live)
            assert (figures["scan"], figures["version"]) == (image.scan, image.version)
            assert set(maps) == set(image.maps)
            for name, layer in maps.items():
                expected = image.maps[name]
                assert (layer.dtype, layer.shape) == (expected.dtype, expected.shape), name
                assert layer.tobytes() == expected.tobytes(), name
        with pytest.raises(StopIteration):
            next(plain)


def test_it_says_why_it_is_refused():
    with FakeDoor(reject="no more room") as door, pytest.raises(SystemExit, match="no more room"):
        next(plain_client.follow(door.address))
