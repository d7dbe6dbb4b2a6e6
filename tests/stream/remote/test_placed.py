import stat
from pathlib import Path

import pytest

from stream.remote.placed import door_of_placed, follow, let_in
from stream.wire.keys import create_keys
from stream.wire.sockets import Endpoint, Socket, read_keys

PATIENCE_S, BRIEFLY_S = 5.0, 0.3
HERE = Endpoint(address="tcp://127.0.0.1:*", bind=True)


def gets_in(door: Socket, key: Path, server: Path) -> bool:
    with Socket("PUSH", Endpoint(address=door.address, key=key, peers=server)) as worker:
        worker.send([b"hello"])
        return door.receive(BRIEFLY_S) is not None


def test_a_door_without_keys_gets_some_that_others_cannot_read(tmp_path):
    door = door_of_placed(HERE, tmp_path)
    assert door.key is not None
    assert stat.S_IMODE(door.key.stat().st_mode) == 0o600
    assert read_keys(door) == read_keys(door_of_placed(HERE, tmp_path)), (
        "a door that starts again has the same"
    )


def test_who_is_placed_gets_in_with_the_key_that_was_told_last_and_so_does_who_is_known(tmp_path):
    run, theirs = create_keys(tmp_path / "keys", "run"), tmp_path / "clients"
    first, second, known = (create_keys(tmp_path / "keys", name) for name in ("first", "second", "known"))
    theirs.mkdir()
    with Socket(
        "PULL", door_of_placed(Endpoint(**vars(HERE) | {"key": run, "peers": theirs}), tmp_path)
    ) as door:
        server = run.with_suffix(".key")

        def public(key: Path) -> str:
            keys = read_keys(Endpoint(address=door.address, key=key, peers=server))
            assert keys is not None
            return keys[0].decode()

        let_in(tmp_path, "placed-1", public(first))
        assert gets_in(door, first, server)
        let_in(tmp_path, "placed-1", public(second))
        assert gets_in(door, second, server)
        assert not gets_in(door, first, server)
        (theirs / "known.key").write_bytes(known.with_suffix(".key").read_bytes())
        follow(tmp_path, theirs)
        follow(tmp_path, theirs)
        assert gets_in(door, known, server)
        (theirs / "known.key").unlink()
        assert not gets_in(door, known, server)


def test_what_is_no_key_lets_nobody_in(tmp_path):
    door_of_placed(HERE, tmp_path)
    with pytest.raises(ValueError, match=r"placed-1: wanted a public key, 40 characters of Z85, got 9"):
        let_in(tmp_path, "placed-1", 'x"\nkey="y')
