import resource

import pytest

from stream.wire.keys import create_keys
from stream.wire.sockets import Endpoint


class Keys:
    """Key pairs of a server, its client, and a stranger."""

    def __init__(self, folder):
        self.server = create_keys(folder / "server", "server")
        self.client = create_keys(folder / "client", "client")
        self.stranger = create_keys(folder / "stranger", "stranger")
        self.allowed = folder / "allowed"
        self.allowed.mkdir()
        (self.allowed / "client.key").write_bytes(self.client.with_suffix(".key").read_bytes())
        self.server_public = self.server.with_suffix(".key")

    def door(self, address="tcp://127.0.0.1:*"):
        return Endpoint(address=address, bind=True, key=self.server, peers=self.allowed)

    def visitor(self, server, key):
        return Endpoint(address=server.address, key=key, peers=self.server_public)


@pytest.fixture
def small_disk():
    """Files end at 1 MB, as by a real limit of the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path)


@pytest.fixture
def scans(tmp_path):
    """A folder for scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder
