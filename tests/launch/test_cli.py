import subprocess
import sys
from typing import get_args

import pytest

from launch import cli
from launch.cli.app import EngineDevice
from operators.engine.backends import BACKENDS


def test_help_loads_no_array_library():
    code = (
        "import sys; sys.argv = ['ptychostream', '--help']\n"
        "from launch.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'numpy', 'torch', 'zmq', 'pydantic'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_reconstruct_offers_every_backend_though_it_starts_without_the_engine():
    choices, *_ = get_args(get_args(EngineDevice)[0])
    assert get_args(choices) == BACKENDS


def test_a_mistake_is_one_line_and_exit_status_2(call, tmp_path):
    status, out, err = call("check", str(tmp_path / "no.yaml"))
    assert (status, out) == (2, "")
    assert err.startswith("ptychostream: ") and err.count("\n") == 1


def test_debugging_shows_where_a_mistake_was_noticed(monkeypatch, tmp_path):
    monkeypatch.setenv(cli.DEBUG, "1")
    monkeypatch.setattr(sys, "argv", ["ptychostream", "check", str(tmp_path / "no.yaml")])
    with pytest.raises(ValueError, match="no such file"):
        cli.main()


def test_keys_are_written_and_the_secret_one_is_private(call, tmp_path):
    status, out, _ = call("keys", str(tmp_path), "viewer")
    assert status == 0
    secret, public = tmp_path / "viewer.key_secret", tmp_path / "viewer.key"
    assert str(secret) in out and str(public) in out
    assert public.is_file()
    assert secret.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["demo", "--sample", "banana", "--no-store"],
            "unknown family of samples 'banana'; choose one of smooth, ",
        ),
        (
            ["simulate", "scan.cxi", "--sample", "banana"],
            "unknown family of samples 'banana'; choose one of smooth, ",
        ),
        (
            ["simulate", "scan.cxi", "--config", "no.yaml"],
            "no.yaml: cannot be read: No such file",
        ),
        (["train", "no.yaml"], "no.yaml: cannot be read: No such file"),
        (["train", "."], ".: cannot be read: Is a directory"),
        (["train", "DEMO", "--device", "banana"], "device 'banana': wanted cpu or cuda"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_and_leaves_nothing(call, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    recipe = str(cli.__file__).replace("cli/__init__.py", "recipes/train-demo.yaml")
    status, _, err = call(*[recipe if argument == "DEMO" else argument for argument in arguments])
    assert status == 2
    assert err.startswith(f"ptychostream: {said}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--save", "~nobody-here/x"],
        ["run", "demo", "--save", "~nobody-here/x"],
        ["check", "demo", "--save", "~nobody-here/x"],
        ["reconstruct", "scan.cxi", "--output", "~nobody-here/x"],
        ["simulate", "~nobody-here/x"],
        ["train", "recipe.yaml", "--output", "~nobody-here/x"],
        ["keys", "~nobody-here/x", "me"],
    ],
)
def test_the_home_of_nobody_is_no_place_for_results(call, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(*arguments)
    assert status == 2
    assert "there is no home folder ~nobody-here; ./~nobody-here/x is a path here" in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_the_own_home_is_found_where_a_shell_leaves_it_as_it_is(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call("keys", "~/keys", "me")[0] == 0
    assert (tmp_path / "keys" / "me.key").is_file()
