"""Whatever stands in a file of settings: a refusal is one paragraph that names file and key."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from launch.beamline.simulation import Simulation
from launch.config.config import Config
from launch.training.recipe import DEMO_RECIPE, Recipe
from tests.helpers.launch.wrong_values import said_in_refusal
from tests.launch.conftest import Call

RUN = """\
geometry: {energy_ev: 9000, detector_distance_m: 1.0, detector_pixel_m: 75.0e-6, n_pixels: 64}
detector: {address: "tcp://127.0.0.1:9"}
positions: {unit: um}
"""
# command, its arguments before the file, what the file has to say, and what it is checked by
FILES = {
    "run": (["check"], RUN, Config),
    "training": (["train"], DEMO_RECIPE.read_text(), Recipe),
    "simulation": (["simulate", "new.cxi", "--config"], "family: glyphs\n", Simulation),
}

scalars = st.sampled_from(
    ("banana", "", " ", "\0", "/", ".", "é" * 300, -1, 0, 3.5, 10**30, 1e300, -1e300, True, None)
)
values = st.recursive(
    scalars | st.sampled_from((float("nan"), float("inf"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
)


def keys_of(model: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of a model and of its sections, sections included."""
    fields = model.model_fields if hasattr(model, "model_fields") else model.__pydantic_fields__
    for name, field in fields.items():
        yield (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, (*prefix, name))


def changed(tree: dict[str, Any], key: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = key
    inner = tree.get(name)
    put = changed(inner if isinstance(inner, dict) else {}, tuple(rest), value) if rest else value
    return tree | {name: put}


def is_refused(model: Any, tree: dict[str, Any], folder: Path) -> bool:
    """Whether the model itself, without the command line around it, takes these settings."""
    try:
        TypeAdapter(model).validate_python(tree, context={"folder": folder})
    except (ValueError, TypeError, OSError, OverflowError, RecursionError):
        return True
    return False


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_a_setting_that_cannot_be_used_is_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, data: st.DataObject
) -> None:
    command, good, model = FILES[kind]
    key = data.draw(st.sampled_from(list(keys_of(model))), "key")
    tree = changed(yaml.safe_load(good), key, data.draw(values, "value"))
    assume(is_refused(model, tree, tmp_path))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=True))
    said = said_in_refusal(call, [*command, str(file)])
    assert "settings.yaml" in said, said
    assert ".".join(key) in said or key[0] in said, said


@pytest.mark.parametrize("kind", FILES)
@given(content=st.binary(max_size=60) | st.text("{}[]:,-# \n\t\"'&*!|>%@`ab1", max_size=30).map(str.encode))
@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_a_file_that_is_no_settings_is_named(call: Call, tmp_path: Path, kind: str, content: bytes) -> None:
    command, _, model = FILES[kind]
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with suppress(yaml.YAMLError, ValueError):  # not even YAML
        assume(is_refused(model, yaml.safe_load(content), tmp_path))
    assert "settings.yaml" in said_in_refusal(call, [*command, str(file)])


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_a_setting_on_the_command_line_that_is_none_is_named(call: Call, tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(RUN)
    assert "--set" in said_in_refusal(call, ["check", str(file), "--set", text])
