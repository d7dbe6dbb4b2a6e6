import pytest
import yaml

from launch.config.edit import with_settings
from launch.config.reading import ConfigError

TEXT = """# our beamline
geometry:
  energy_ev: 8800   # nominal
  n_pixels: 128

positions:
  unit: um
  signs:   # of the stage
    - 1
    - -1   # x moves the sample
  # y: sample_y
probe: {source: data, n_modes: 3}  # found
detector:
"""


def test_a_value_is_changed_and_every_other_character_stays():
    changed = with_settings(TEXT, {("geometry", "n_pixels"): 256}, "a.yaml")
    assert changed == TEXT.replace("n_pixels: 128", "n_pixels: 256")


def test_a_new_key_goes_to_the_end_of_its_section():
    settings = {("geometry", "centre"): [510, 498], ("positions", "y"): "stage-x", ("probe", "scale"): False}
    changed = with_settings(TEXT, settings, "a.yaml")
    assert "  n_pixels: 128\n  centre: [510, 498]\n" in changed
    assert "    - -1   # x moves the sample\n  y: stage-x\n" in changed
    assert "probe: {source: data, n_modes: 3, scale: false}  # found" in changed
    assert [line for line in TEXT.splitlines() if "#" in line and "probe" not in line] == [
        line for line in changed.splitlines() if "#" in line and "probe" not in line
    ]


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.rstrip("\n") + " {}",
        "{positions: {unit: um}, geometry: {n_pixels: 64}}",
        "positions:\n  unit: um",
        "geometry: {n_pixels: 64}\npositions: {}",
        "detector:\n  address: a  # last",
        'positions: {"signs": [1, 1], unit: um}\n',
    ],
)
def test_what_is_read_afterwards_is_what_was_there_and_what_was_set(text):
    settings = {("positions", "signs"): [-1, 1], ("positions", "y"): "a: b", ("detector", "queue"): 7}
    changed = with_settings(text, settings, "a.yaml")
    wanted = yaml.safe_load(text)
    for (section, key), value in settings.items():
        wanted[section] = (wanted.get(section) or {}) | {key: value}
    assert yaml.safe_load(changed) == wanted
    assert ("\r\n" in text) == ("\r\n" in changed)


@pytest.mark.parametrize(
    "text",
    [
        "one: &s {signs: [1, 1]}\npositions: *s\n",
        "a: {b: &s [1, 1]}\npositions:\n  signs: *s\n",
    ],
)
def test_what_is_said_by_an_alias_is_left_to_its_owner(text):
    with pytest.raises(ConfigError, match=r"a\.yaml: positions.* by hand"):
        with_settings(text, {("positions", "signs"): [-1, 1]}, "a.yaml")
