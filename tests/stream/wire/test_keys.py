import os
import stat
from pathlib import Path

import pytest
import zmq
import zmq.auth

from stream.wire.keys import create_keys


def test_keys_are_never_replaced_unasked_for_peers_would_be_locked_out(tmp_path: Path) -> None:
    secret = create_keys(tmp_path, "me")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"me\.key_secret, .*me\.key: there already; --overwrite"):
        create_keys(tmp_path, "me")
    (tmp_path / "me.key_secret").unlink()
    with pytest.raises(FileExistsError, match=r"me\.key: there already"):
        create_keys(tmp_path, "me")
    assert [path.name for path in tmp_path.iterdir()] == ["me.key"]
    assert (tmp_path / "me.key").read_text() == before["me.key"]
    assert create_keys(tmp_path, "me", overwrite=True) == secret
    assert {path.name for path in tmp_path.iterdir()} == set(before)
    assert (tmp_path / "me.key").read_text() != before["me.key"]


def test_of_two_who_make_the_same_keys_at_once_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def later(*paths: object) -> None:
        (tmp_path / "me.key_secret").write_text("of the other")
        link(*paths)

    monkeypatch.setattr(os, "link", later)
    with pytest.raises(FileExistsError):
        create_keys(tmp_path, "me")
    assert (tmp_path / "me.key_secret").read_text() == "of the other"


@pytest.mark.parametrize(
    "name", ["../evil", "../../evil", "a/b", "", ".", "..", "/tmp/evil", "a\nb", ".hidden", "a\0b"]
)
def test_a_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="wanted a plain name"):
        create_keys(tmp_path / "keys", name)
    assert list(tmp_path.iterdir()) == []


def test_a_secret_key_is_never_open_to_others_not_even_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", None)  # what is closed afterwards was open before
    monkeypatch.setattr(os, "chmod", None)
    before = os.umask(0)
    try:
        secret = create_keys(tmp_path, "me")
    finally:
        os.umask(before)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    public, private = zmq.auth.load_certificate(secret)
    assert zmq.auth.load_certificate(secret.with_suffix(".key")) == (public, None)
    assert zmq.curve_public(private) == public
