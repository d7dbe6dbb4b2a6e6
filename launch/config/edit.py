"""Settings changed in the text of a configuration, whose comments and layout stay as they are."""

from collections.abc import Mapping
from typing import Any

import yaml

from launch.config.reading import ConfigError, Key, parse


def with_settings(text: str, settings: Mapping[Key, Any], origin: str) -> str:
    """Returns YAML text in which settings have other values; nothing else in it is touched.

    Parameters
    ----------
    text : str
        Of a configuration: sections with keys.
    settings : mapping of (section, key) to value
        A section or key that is not there is added.
    origin : str
        What errors begin with.

    Raises
    ------
    ConfigError
        If the text is no such YAML, or says a setting in a way that cannot be changed in place.
    """
    wanted = parse(text, origin)
    for (section, key), value in settings.items():
        text = _changed(text, section, key, value, origin)
        wanted[section] = {**(wanted.get(section) or {}), key: value}
    if parse(text, origin) != wanted:
        raise ConfigError(f"{origin}: is written in a way that cannot be changed in place: change it by hand")
    return text


def as_yaml(value: Any) -> str:
    """Returns a value as it stands behind its key, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("\n...\n").strip()


def _changed(text: str, section: str, key: str, value: Any, origin: str) -> str:
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{origin}: wanted sections with keys")
    line = f"{key}: {as_yaml(value)}"
    newline = "\r\n" if "\r\n" in text else "\n"
    found = _child(root, section)
    if found is None:
        if root.flow_style:
            return _added(text, root, f"{section}: {{{line}}}", newline)
        return (
            f"{text}{'' if text.endswith(newline) else newline}{newline}{section}:{newline}  {line}{newline}"
        )
    name, settings = found
    if settings.start_mark.index < name.end_mark.index:
        raise ConfigError(f"{origin}: {section} is an alias of another section: change it by hand")
    if not isinstance(settings, yaml.MappingNode):  # nothing behind its name
        at = name.end_mark.index + text[name.end_mark.index :].index(":") + 1
        return f"{text[:at]}{newline}  {line}{text[at:]}"
    if (pair := _child(settings, key)) is None:
        return _added(text, settings, line, newline)
    name, old = pair
    if old.start_mark.index < name.end_mark.index:
        raise ConfigError(f"{origin}: {section}.{key} is an alias of another value: change it by hand")
    return text[: old.start_mark.index] + as_yaml(value) + text[_end(old) :]


def _child(node: yaml.MappingNode, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next((pair for pair in node.value if pair[0].value == name), None)


def _added(text: str, node: yaml.MappingNode, line: str, newline: str) -> str:
    """Return the text with a line more at the end of a section."""
    at = _end(node)
    if node.flow_style:
        at = text.rindex("}", 0, at) if not node.value else _end(node.value[-1][1])
        return f"{text[:at]}{', ' * bool(node.value)}{line}{text[at:]}"
    end = text.find("\n", at)
    indent = " " * node.start_mark.column
    if end < 0:
        return f"{text}{newline}{indent}{line}{newline}"
    return f"{text[: end + 1]}{indent}{line}{newline}{text[end + 1 :]}"


def _end(node: yaml.Node) -> int:
    """Return where a node ends in the text: of a block, behind its last value, where comments begin."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)
