"""Tables of settings, from the JSON schema of the model that checks them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs._generate.tables import attributes, sentence, table

Schema = Mapping[str, Any]

UNITS = {"_m": "m", "_px": "pixel", "_ev": "eV", "_s": "s", "_rad": "rad", "_ms": "ms"}
PHOTONS = {"photons", "photons_per_frame", "max_dose"}
BOUNDS = {
    "exclusiveMinimum": "> {:g}",
    "minimum": "≥ {:g}",
    "exclusiveMaximum": "< {:g}",
    "maximum": "≤ {:g}",
}
HUGE = 2**31  # bounds that only keep numbers inside their type are not worth a reader's time
TYPES = {"number": "number", "integer": "whole number", "boolean": "true or false", "string": "text"}
ROOT = Path(__file__).resolve().parents[2]


def settings(schema: Schema) -> str:
    """Returns the tables of a model: its own keys, then a section for each that is a model itself."""
    definitions = schema.get("$defs", {})
    own = {
        name: field for name, field in schema["properties"].items() if _section(field, definitions) is None
    }
    parts = []
    if own:
        parts += ["## Beside the sections", _table(own, schema, definitions)]
    for name, field in schema["properties"].items():
        section = _section(field, definitions)
        if section is not None:
            parts += [
                f"## {name}",
                _summary(field, section),
                _table(section["properties"], section, definitions),
            ]
    return "\n\n".join(parts) + "\n"


def _section(field: Schema, definitions: Schema) -> Schema | None:
    """Return the model that a field holds, None if it is a plain value."""
    choices = field.get("anyOf", field.get("allOf", [field]))
    for choice in choices:
        found = definitions.get(choice.get("$ref", "").rpartition("/")[2])
        if found is not None and "properties" in found:
            return found
    return None


def _summary(field: Schema, section: Schema) -> str:
    text = section.get("description") or field.get("description", "")
    summary = text.partition("\n\n")[0].strip()
    return sentence(summary) + "."


def _table(fields: Schema, model: Schema, definitions: Schema) -> str:
    meanings, required = attributes(model.get("description", "")), model.get("required", [])
    rows = []
    for name, field in fields.items():
        meaning = field.get("description") or meanings.get(name, "")
        default = "required" if name in required else _default(field.get("default"))
        rows.append((f"`{name}`", _type(field, definitions), _unit(name), default, sentence(meaning)))
    return table(("key", "type", "unit", "default", "meaning"), rows)


def _type(field: Schema, definitions: Schema) -> str:
    """Return a type as a person would say it, with its bounds."""
    if "$ref" in field:
        field = definitions[field["$ref"].rpartition("/")[2]]
    if "anyOf" in field:
        choices = [_type(choice, definitions) for choice in field["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(choices))
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return ", ".join("none" if value == "" else f"`{_yaml(value)}`" for value in values)
    if field.get("type") == "array":
        return _list(field, definitions)
    if field.get("type") == "object":
        return "mapping"
    if field.get("format") == "path":
        return "path"
    name = TYPES.get(field.get("type", ""), "any")
    return " ".join([name, ", ".join(_bounds(field))]).strip()


def _list(field: Schema, definitions: Schema) -> str:
    if "prefixItems" in field:
        items = [_type(item, definitions).replace("`, `", "` or `") for item in field["prefixItems"]]
        return f"[{', '.join(items)}]"
    return f"list of {_type(field.get('items', {}), definitions)}"


def _bounds(field: Schema) -> Iterator[str]:
    for key, words in BOUNDS.items():
        if key in field and abs(field[key]) < HUGE:
            yield words.format(field[key])


def _unit(name: str) -> str:
    if name in PHOTONS:
        return "photons"
    return next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")


def _default(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, str) and Path(value).is_absolute():
        value = Path(value).relative_to(ROOT) if Path(value).is_relative_to(ROOT) else Path(value).name
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """Return a value as it would stand in a YAML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value)
