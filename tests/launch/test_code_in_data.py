"""Files that somebody sent run no code: pickles under every name that is read, tags of YAML."""

import io
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from launch.beamline.simulation import Simulation
from launch.config.config import Config
from launch.config.file import load_config
from launch.config.probe import read_card
from launch.config.reading import ConfigError, read_settings
from launch.training.recipe import Recipe
from stream.files.arrays import read_archive, read_array
from stream.files.cxi import read_scan
from stream.files.plain import Layout, read_plain
from stream.files.probe import read_probe
from stream.files.tables import read_table
from stream.files.weights import load_network


class Bomb:
    """Whoever unpickles it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int, bool]]:
        return os.makedirs, (str(self.mark), 0o700, True)


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _bombs(mark: Path) -> dict[str, bytes]:
    objects = np.array([Bomb(mark)] * 4, object)
    return {
        "pickle": pickle.dumps(Bomb(mark)),
        "pickle in text": pickle.dumps(Bomb(mark), protocol=0),
        "objects in npy": _saved(lambda file: np.save(file, objects, allow_pickle=True)),
        "objects in npz": _saved(lambda file: np.savez(file, probe=objects, data=objects, positions=objects)),
        "weights of torch": _saved(lambda file: torch.save({"encoder.weight": Bomb(mark)}, file)),
        "old weights of torch": _saved(
            lambda file: torch.save(Bomb(mark), file, _use_new_zipfile_serialization=False)
        ),
    }


# Each with the names by which it knows a kind of file, where it does.
READERS: dict[Callable[[Path], object], tuple[str, ...]] = {
    read_array: (".npy",),
    read_archive: (".npz",),
    read_probe: (".npy", ".npz", ".cxi", ".h5", ".ptyd"),
    read_table: (".npy", ".csv", ".txt", ".dat"),
    read_scan: (".npz", ".cxi", ".h5", ".ptyd"),
    load_network: (".safetensors", ".pt", ".pth", ".pkl"),
    read_card: (".safetensors", ".pt", ".pth", ".pkl"),
}


def _read_data(path: Path) -> object:
    return read_plain(path, Layout(data="data", positions="positions", unit="um"))


READERS[_read_data] = (".npy", ".npz", ".h5")


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "exploded"
    yield path
    assert not path.exists(), "code in a file was run"


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_what_is_pickled_is_refused_unread(read, mark, tmp_path):
    for content in _bombs(mark).values():
        for suffix in READERS[read]:
            path = tmp_path / f"sent{suffix}"
            path.write_bytes(content)
            with pytest.raises(ValueError, match=str(path)):
                read(path)


def _unpickled(name: str, content: bytes) -> None:
    """Read a bomb as it must not be read."""
    if "npz" in name:
        [*np.load(io.BytesIO(content), allow_pickle=True).values()]
    elif "npy" in name:
        np.load(io.BytesIO(content), allow_pickle=True)
    elif "torch" in name:
        torch.load(io.BytesIO(content), weights_only=False)
    else:
        pickle.loads(content)  # noqa: S301 -- a bomb of our own


def test_the_bombs_are_live(tmp_path):
    for name in _bombs(tmp_path):
        mark = tmp_path / name
        _unpickled(name, _bombs(mark)[name])
        assert mark.is_dir(), name


TAGS = (
    "!!python/object/apply:os.mkdir ['{mark}']",
    "!!python/object/apply:os.mkdir {{args: ['{mark}']}}",
    "!!python/object/new:os.mkdir ['{mark}']",
    "!!python/name:os.mkdir",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
)


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_of_yaml_is_refused_wherever_yaml_is_read(tag, mark, tmp_path):
    value, file = tag.format(mark=mark), tmp_path / "sent.yaml"
    for text in (f"save: {value}\n", f"{value}\n", f"? {value}\n: 1\n", f"a: &x [{value} ]\nb: *x\n"):
        file.write_text(text)
        for model in (Config, Recipe, Simulation):
            with pytest.raises(ConfigError, match=r"sent\.yaml:1: not YAML: could not determine"):
                read_settings(file, model)
    for given in ({"overrides": [f"save={value}"]}, {"environ": {"PTYCHOSTREAM__SAVE": value}}):
        with pytest.raises(ConfigError, match="not YAML: could not determine a constructor"):
            load_config("demo", **given)
