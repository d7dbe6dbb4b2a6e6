"""The door of a run for workers that the run has placed on other machines itself.

Keys are made for the one run: its own lie in its short-lived folder, those of a worker where it works. Secret
ones never travel; a worker tells its public key, and the run lets in who has it.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from stream.wire.keys import create_keys, write_public_key
from stream.wire.sockets import Endpoint

_FOLDER = "placed"  # in the run's short-lived one
_PEERS = "peers"


def door_of_placed(door: Endpoint, rendezvous: Path) -> Endpoint:
    """Returns the door with keys, where it has none, and with who is placed let in beside its own `peers`."""
    folder = rendezvous / _FOLDER
    peers = folder / _PEERS
    peers.mkdir(parents=True, exist_ok=True)
    key = door.key or folder / "run.key_secret"
    if not key.exists():
        create_keys(folder, "run")
    follow(rendezvous, door.peers)
    return replace(door, key=key, peers=peers, insecure=False)


def follow(rendezvous: Path, peers: Path | None) -> None:
    """Lets in who is in the folder `peers` of the configuration now, for as long as his file is there."""
    for file in peers.glob("*.key") if peers is not None else ():
        with suppress(FileExistsError):
            (rendezvous / _FOLDER / _PEERS / f"known-{file.name}").symlink_to(file.absolute())


def let_in(rendezvous: Path, worker: str, public_key: str) -> None:
    """Lets the worker of this name in, with this key alone from now on; raises as `write_public_key`."""
    write_public_key(rendezvous / _FOLDER / _PEERS / f"{worker}.key", public_key)
