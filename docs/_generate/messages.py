"""Tables of messages, from the source of their module, where bounds and comments are."""

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import msgspec

from docs._generate.tables import attributes, sentence, table


def message_tables(module: Any) -> str:
    """Returns the short names of types, then a section for every message in the order of the source."""
    tree = ast.parse(inspect.getsource(module))
    aliases = [
        (f"`{node.targets[0].id}`", _type_name(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_type(node.value)
    ]
    kinds = [
        kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, msgspec.Struct)
    ]
    own = [kind for kind in kinds if kind.__module__ == module.__name__]
    text = "\n\n".join(["## Types with bounds", table(("name", "type"), aliases), *map(_message, own)])
    # A bound that has a name is shown as the number that it is.
    named = r"\b(max_length|le) ([A-Z_]+)"
    return re.sub(named, lambda bound: f"{bound[1]} {getattr(module, bound[2])}", text) + "\n"


def _is_type(node: ast.expr) -> bool:
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
        return False
    return node.value.id in ("Annotated", "Literal", "tuple")


def _message(kind: type) -> str:
    source, docstring = textwrap.dedent(inspect.getsource(kind)), inspect.getdoc(kind) or ""
    text, meanings = docstring.partition("Attributes\n---")[0].strip(), attributes(docstring)
    base = kind.__bases__[0]
    if base is not msgspec.Struct and base.__name__ != "Message":
        text += f"\n\nIt has the fields of [`{base.__name__}`](#{base.__name__.lower()}) as well."
    fields = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AnnAssign)]
    rows = [_message_field(node, source, meanings) for node in fields if "ClassVar" not in ast.dump(node)]
    fields_of = [table(("field", "type", "default", "meaning"), rows)] if rows else []
    return "\n\n".join([f"## {kind.__name__}", text, *fields_of])


def _message_field(
    node: ast.AnnAssign, source: str, meanings: Mapping[str, str]
) -> tuple[str, str, str, str]:
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    name, comments = ast.unparse(node.target), [line.partition("  # ")[2] for line in lines]
    meaning = meanings.get(name, " ".join(filter(None, comments)))
    default = "required" if node.value is None else f"`{ast.unparse(node.value)}`"
    return f"`{name}`", _type_name(node.annotation), default, sentence(meaning)


def _type_name(node: ast.expr) -> str:
    """Return a type as it is written, and after it the bounds that it is annotated with."""
    bounds: list[str] = []

    class WithoutBounds(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            self.generic_visit(node)
            if ast.unparse(node.value) != "Annotated" or not isinstance(node.slice, ast.Tuple):
                return node
            kind, meta = node.slice.elts
            assert isinstance(meta, ast.Call)  # noqa: S101 -- nothing else annotates a field
            bounds.extend(f"{word.arg} {ast.unparse(word.value)}" for word in meta.keywords)
            return kind

    kind = ast.unparse(WithoutBounds().visit(node))
    return ", ".join([f"`{kind}`", *(f"`{bound}`" for bound in bounds)])
