"""The text of a first configuration: every setting with its meaning, what is left out as a comment."""

from textwrap import wrap

from launch.config.config import Config
from launch.config.edit import as_yaml
from launch.config.reading import fields_at
from launch.init.told import Told

# What a beamline mostly has to say; the reference of the configuration has all there is.
SHOWN: dict[str, tuple[str, ...]] = {
    "geometry": (
        "energy_ev",
        "detector_distance_m",
        "detector_pixel_m",
        "n_pixels",
        "centre",
        "binning",
        "mask",
    ),
    "detector": ("format", "address", "bind", "pattern", "insecure", "pv", "silence_s"),
    "positions": (
        *("source", "address", "bind", "pvs", "growing_path", "unit", "y", "x", "signs"),
        *("captures_per_frame", "path", "folders"),
    ),
    "probe": ("source", "path", "n_modes"),
    "network": ("weights",),
    "refinement": ("epochs",),
}
_WIDTH = 100


def configuration_text(told: Told, header: str) -> str:
    """Returns YAML with the values of `told`; other settings that are often needed stand there as comments.

    Parameters
    ----------
    told : Told
    header : str
        Sentences at the top.
    """
    lines = _comment(header, "")
    others = {key[0]: () for key in told.values if key[0] not in SHOWN}
    for section, shown in {**SHOWN, **others}.items():
        known = [key for name, key in told.values if name == section]
        meanings = fields_at(Config, (section,))
        lines += ["", *_comment(fields_at(Config, ())[section], "")]
        lines += [f"{section}:" if known else f"# {section}:"]
        for key in dict.fromkeys([*shown, *known]):
            lines += [*_comment(meanings[key], "  "), _line(told, section, key)]
    return "\n".join([*lines, ""])


def _line(told: Told, section: str, key: str) -> str:
    place = section, key
    if place in told.values:
        return f"  {key}: {as_yaml(told.values[place])}  # {told.sources[place]}"
    default = Config.model_fields[section].annotation.model_fields[key].get_default()  # type: ignore[union-attr]
    value = told.offers.get(place, default)
    return f"  # {key}: {'...' if value is None else as_yaml(value)}"


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in wrap(text, _WIDTH - len(indent))]
