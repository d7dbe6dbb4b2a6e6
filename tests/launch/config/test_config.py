import pickle
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from launch.config.config import Config, config_hash
from launch.config.file import load_config, recipes
from launch.config.policy import policy_aims
from launch.config.reading import ConfigError
from launch.config.run_file import ResolvedRun
from launch.training.recipe import Recipe
from operators.section import Section

MINIMAL = """
geometry: {energy_ev: 8.8e3, detector_distance_m: 1.92, detector_pixel_m: 75.0e-6, n_pixels: 128}
detector: {address: "tcp://127.0.0.1:31001"}
positions: {unit: um}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "siemens.yaml"
    path.write_text(MINIMAL)
    return path


def mistakes(file: Path, **options) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file, **options)
    return str(caught.value).splitlines()


def test_a_minimal_file_gives_every_other_setting_its_default(file):
    config = load_config(file)
    assert config.geometry.energy_ev == 8800.0
    assert config.detector.pattern == "PULL"
    assert config.positions.endpoint().bind
    assert config.save == file.parent / "recordings"


def test_geometry_counts_the_binning_into_the_pixel(file):
    config = load_config(file, overrides=["geometry.binning=2"])
    assert config.geometry.geometry().detector_pixel_m == pytest.approx(150e-6)


def test_a_wrong_value_names_file_key_what_was_wanted_and_what_came(file):
    file.write_text(MINIMAL.replace("detector: {", "detector: {pattern: PUSH, "))
    assert mistakes(file) == ["siemens.yaml: detector.pattern: wanted 'PULL' or 'SUB', got 'PUSH'"]


def test_every_mistake_gets_its_own_line(file):
    file.write_text(
        MINIMAL.replace("energy_ev: 8.8e3", "energy_ev: -1").replace("n_pixels: 128", "n_pixels: 1.5")
    )
    assert mistakes(file) == [
        "siemens.yaml: geometry.energy_ev: wanted more than 0, got -1",
        "siemens.yaml: geometry.n_pixels: wanted a whole number, got 1.5",
    ]


def test_a_misspelt_key_is_recognised(file):
    file.write_text(MINIMAL + "refinment: {epochs: 3}\n")
    assert mistakes(file) == ["siemens.yaml: refinment: unknown key, did you mean 'refinement'?"]


def test_a_key_like_no_other_lists_the_keys_there_are(file):
    [line] = mistakes(file, overrides=["viewer.zzz=1"])
    assert line.startswith("--set: viewer.zzz: unknown key; the keys here are enabled, host, port")


def test_keys_that_may_be_meant_are_named_and_all_keys_of_a_section_once(file):
    lines = mistakes(file, overrides=["viewer.zzz=1", "viewer.zzy=1", "detector.frame=1", "viewer.Port=1"])
    assert sum("the keys here are" in line for line in lines) == 1
    assert "--set: viewer.zzy: unknown key" in lines
    assert "--set: viewer.Port: unknown key, did you mean 'port'?" in lines
    assert "--set: detector.frame: unknown key, did you mean 'frame_shape' or 'frame_dtype'?" in lines


def test_a_missing_key_says_what_it_is_for(file):
    file.write_text(MINIMAL.replace("energy_ev: 8.8e3, ", ""))
    assert mistakes(file) == ["siemens.yaml: geometry.energy_ev: missing: photon energy, eV"]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("positions.signs=[1]", "positions.signs.1"),
        ("geometry.centre=[514]", "geometry.centre.1"),
        ("policy.limits=[[0], [0, 1]]", "policy.limits.0.1"),
    ],
)
def test_a_list_that_is_too_short_is_refused(file, override, key):
    assert mistakes(file, overrides=[override]) == [f"--set: {key}: missing: one value more"]


def test_a_section_that_is_no_section_is_refused(file):
    file.write_text(MINIMAL + "viewer: 8010\n")
    assert mistakes(file) == ["siemens.yaml: viewer: wanted a section with keys, got 8010"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("geometry: [", "siemens.yaml:1: not YAML: expected the node content, but found '<stream end>'"),
        ("save: a\nsave: b", "siemens.yaml:1: not YAML: key 'save' is given twice"),
        ("just text", "siemens.yaml: wanted sections with keys, got 'just text'"),
        ("- 1", "siemens.yaml: wanted sections with keys, got [1]"),
        ("", "siemens.yaml: wanted sections with keys, got nothing"),
        ("save: \0", "siemens.yaml: not YAML: special characters are not allowed: '\\x00'"),
        ("a: 2026-13-45", "siemens.yaml: not YAML: month must be in 1..12"),
        ("[" * 5000, "siemens.yaml: not YAML that can be read: brackets within brackets without end"),
    ],
)
def test_what_is_not_a_configuration_is_refused(file, text, line):
    file.write_text(text)
    assert mistakes(file) == [line]


@pytest.mark.parametrize(
    "content", [pickle.dumps({"save": "x"}), "geometry: {}".encode("utf-16"), b"\x89HDF\r\n"]
)
def test_a_file_that_is_no_text_is_refused(file, content):
    file.write_bytes(content)
    assert mistakes(file) == [f"{file}: wanted YAML, which is text in UTF-8, found other bytes"]


def test_a_folder_is_refused_unless_it_has_the_name_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert load_config("demo").geometry.n_pixels == 64, "what the demo leaves is no configuration"
    [line] = mistakes(tmp_path)
    assert line.startswith(f"{tmp_path}: a folder, not a file, and no recipe")


def test_a_name_that_no_file_can_have_is_refused(file):
    [line] = mistakes(Path("x" * 5000))
    assert line.startswith("xxx") and "no such file, and no recipe" in line


@pytest.mark.parametrize("value", ["true", "no"])
def test_true_and_false_are_no_numbers(file, value):
    [line] = mistakes(file, overrides=[f"geometry.binning={value}"])
    assert line.startswith("--set: geometry.binning: wanted something else than true or false, got ")


def test_a_list_that_is_too_long_is_refused(file):
    assert mistakes(file, overrides=["geometry.centre=[1, 2, 3]"]) == [
        "--set: geometry.centre: wanted at most 2 values, got [1, 2, 3]"
    ]


def test_an_unknown_file_lists_the_recipes(tmp_path):
    [line] = mistakes(tmp_path / "nothing.yaml")
    assert line.endswith(f"no such file, and no recipe; the recipes are {', '.join(recipes())}")


def test_overrides_beat_the_environment_which_beats_the_file(file):
    environ = {"PTYCHOSTREAM__REFINEMENT__EPOCHS": "7", "PTYCHOSTREAM__REFINEMENT__SEED": "8", "HOME": "/"}
    config = load_config(file, overrides=["refinement.seed=9"], environ=environ)
    assert (config.refinement.epochs, config.refinement.seed) == (7, 9)


def test_a_mistake_names_the_override_or_variable_it_came_from(file):
    environ = {"PTYCHOSTREAM__REFINEMENT__SEED": "-1"}
    assert mistakes(file, environ=environ, overrides=["detector.queue=none"]) == [
        "--set: detector.queue: wanted a whole number, got 'none'",
        "environment PTYCHOSTREAM__REFINEMENT__SEED: refinement.seed: wanted 0 or more, got -1",
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("detector.queue", "--set detector.queue: wanted section.key=value"),
        ("save.folder=x", "--set: save is a value, not a section"),
    ],
)
def test_an_override_that_is_none_is_refused(file, override, line):
    file.write_text(MINIMAL + "save: here\n")
    assert mistakes(file, overrides=[override]) == [line]


def test_paths_start_at_the_folder_of_the_file(file, monkeypatch):
    np.save(file.parent / "mask.npy", np.ones((4, 4), bool))
    monkeypatch.chdir("/")
    config = load_config(file, overrides=["geometry.mask=mask.npy"])
    assert config.geometry.mask == file.parent / "mask.npy"


def test_a_file_that_is_not_there_is_noticed_at_once(file):
    assert mistakes(file, overrides=["geometry.mask=no.npy"]) == [
        f"--set: geometry.mask: there is no file {file.parent / 'no.npy'}"
    ]


def sections_of(model):
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from sections_of(kind)


@pytest.mark.parametrize("file_model", [Config, Recipe])
def test_every_setting_says_what_it_means(file_model):
    sections = list(sections_of(file_model))
    assert len(sections) > 5
    silent = [
        f"{section.__name__}.{name}"
        for section in sections
        for name, field in section.model_fields.items()
        if not field.description
    ]
    assert silent == []


def test_an_open_address_needs_keys_or_a_word(file):
    [line] = mistakes(file, overrides=["live.address=tcp://0.0.0.0:5810"])
    assert line.startswith("--set: live: tcp://0.0.0.0:5810 can be reached from other machines")
    config = load_config(file, overrides=["live.address=tcp://0.0.0.0:5810", "live.insecure=true"])
    assert config.live.endpoint().insecure


def test_a_page_that_others_can_see_needs_a_word_unless_there_is_none(file):
    [line] = mistakes(file, overrides=["viewer.host=0.0.0.0"])
    assert line.startswith("--set: viewer: the page at 0.0.0.0 can be seen from other machines")
    for word in ("viewer.insecure=true", "viewer.enabled=false"):
        assert load_config(file, overrides=["viewer.host=0.0.0.0", word]).viewer.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("probe.source=file", "probe: source 'file' needs `path`"),
        ("probe.source=zone_plate", "probe: source 'zone_plate' needs `pupil_radius_px`"),
        ("positions.source=file", "positions: source 'file' needs `path`"),
        ("positions.unit=", "positions: `unit` is required: one of m, mm, um, nm"),
        ("positions.y=sy", "positions: name two different fields or none, got y 'sy', x ''"),
        (
            "refinement.enabled=false",
            "nothing makes an image: give `network.weights` or set `refinement.enabled`",
        ),
    ],
)
def test_settings_that_need_each_other_are_checked_together(file, override, complaint):
    assert mistakes(file, overrides=[override])[0].endswith(complaint)


def test_a_network_finds_its_probe_where_none_is_known(file):
    (file.parent / "some.safetensors").touch()
    config = load_config(file, overrides=["network.weights=some.safetensors"])
    assert config.finds_probe
    assert not config.scales_probe
    assert not load_config(file).finds_probe, "refinement alone finds its own"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("probe.is_guess=true", "`probe.is_guess` is for a probe that is known and a network that needs it"),
        (
            "finetune.enabled=true",
            "`finetune` needs `network.weights` to tune and `refinement` to learn from",
        ),
    ],
)
def test_what_only_a_network_needs_is_refused_without_one(file, override, complaint):
    assert mistakes(file, overrides=[override])[0].endswith(complaint)


def test_weights_are_not_tuned_beside_members_that_stay_as_they_are(file):
    for name in ("some", "other"):
        (file.parent / f"{name}.safetensors").touch()
    tuned = ["network.weights=some.safetensors", "finetune.enabled=true"]
    for disagreement in ("ensemble", "round_robin"):
        mixed = [*tuned, f"network.disagreement={disagreement}", "network.members=[other.safetensors]"]
        assert "`finetune` tunes one network, and disagreement" in mistakes(file, overrides=mixed)[0]
        assert load_config(file, overrides=[*mixed, "finetune.enabled=false"]).network.members
    assert load_config(file, overrides=[*tuned, "network.disagreement=dropout"]).finetune.enabled


def test_each_device_gets_a_worker(file):
    devices = "network.devices=[cuda:0, cuda:1]"
    (mistake,) = mistakes(file, overrides=[devices])
    assert mistake.endswith("`devices` names 2, `workers` is 1: wanted a worker for each")
    network = load_config(file, overrides=[devices, "network.workers=3"]).network
    assert [network.device_of(worker) for worker in (1, 2, 3)] == ["cuda:0", "cuda:1", "cuda:0"]


def test_the_hash_changes_with_settings_and_not_with_the_folder(file):
    plain = load_config(file)
    elsewhere = load_config(file, overrides=["save=/elsewhere", "network.workers=2", "network.devices=[cpu]"])
    other = load_config(file, overrides=["refinement.seed=1"])
    assert config_hash(plain) == config_hash(elsewhere) != config_hash(other)


def test_a_configuration_survives_being_written_down(file):
    config = load_config(file, overrides=["detector.frame_shape=[514, 1030]"])
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_the_run_file_of_an_earlier_version_is_read_and_its_hash_stays():
    run = ResolvedRun.read(Path(__file__).with_name("earlier_run.json"))
    config = run.config
    assert config_hash(config) == "3731c079dc1b0511", "as that version computed it"
    assert (config.refinement.algorithm, config.refinement.epochs, config.probe.n_modes) == ("epie", 70.0, 2)
    assert (config.positions.signs, config.geometry.geometry().detector_pixel_m) == ((-1, 1), 150e-6)
    assert policy_aims(config).travel is not None


@pytest.mark.parametrize("name", ["beamline", "siemens"])
def test_recipes_are_valid_and_write_to_the_current_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(name).save == tmp_path / "recordings"
