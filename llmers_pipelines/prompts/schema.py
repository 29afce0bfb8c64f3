"""Answer schemas: pydantic -> the small dialect of JSON Schema that every engine accepts.

Grammars of different engines disagree about the rest (``uniqueItems`` is rejected by some), so a
schema outside the whitelist fails here and not on a machine with a GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

KEYWORDS = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf",
    "minItems", "maxItems", "minLength", "maxLength", "pattern", "minimum", "maximum",
})  # fmt: skip
_NOTES = {"title", "description", "default", "examples", "$defs"}  # read by people, not by grammars


class SchemaError(ValueError):
    """A schema cannot be enforced by every engine; the message names the place and the mend."""


def answer_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of ``model``: references inlined, no other keys, every field required."""
    return copy.deepcopy(_schema(model))


@lru_cache(maxsize=256)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    whole = model.model_json_schema()
    schema = _inline(whole, whole.get("$defs", {}))
    check_schema(schema, model.__name__)
    return schema


def _inline(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(n, definitions) for n in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    out = {}
    for name, value in node.items():
        if name == "properties":
            out[name] = {key: _inline(inner, definitions) for key, inner in value.items()}
        elif name not in _NOTES:
            out[name] = _inline(value, definitions)
    if out.get("type") == "object":
        if "properties" not in out:
            raise SchemaError("an object without named fields cannot be constrained; name them")
        out["required"] = list(out["properties"])
        out["additionalProperties"] = False
    return out


def check_schema(schema: Mapping[str, Any], where: str = "schema") -> None:
    """Raise ``SchemaError`` for a keyword outside ``KEYWORDS``, or a string that may never end."""
    unknown = sorted(set(schema) - KEYWORDS)
    if unknown:
        raise SchemaError(
            f"{where}: keyword {unknown[0]!r} is not understood by every engine; use "
            f"{', '.join(sorted(KEYWORDS))}, and check the rest after decoding"
        )
    ended = set(schema) & {"maxLength", "enum", "const", "pattern"}
    if schema.get("type") == "string" and not ended:
        raise SchemaError(
            f"{where}: a free string needs maxLength (or enum, const, pattern); without an end the "
            "answer is cut in the middle of the JSON"
        )
    for name, inner in schema.get("properties", {}).items():
        check_schema(inner, f"{where}.{name}")
    if isinstance(schema.get("items"), Mapping):
        check_schema(schema["items"], f"{where}[]")
    for number, inner in enumerate(schema.get("anyOf", ())):
        check_schema(inner, f"{where}.anyOf[{number}]")


def narrow(
    schema: Mapping[str, Any],
    field: str,
    *,
    const: Any = None,
    enum: Sequence[Any] = (),
    max_length: int = 0,
    max_items: int = 0,
) -> dict[str, Any]:
    """Return a copy whose ``field`` (``a.b``, ``a[]`` for the elements of a list) allows less.

    ``const`` and ``enum`` replace what the field allowed, e.g. by this row's own values, so that a
    wrong entity is impossible; the limits only ever become smaller.
    """
    out = copy.deepcopy(dict(schema))
    node = out
    for part in field.replace("[]", ".[]").split("."):
        if part == "[]":
            node = node["items"]
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        else:
            raise SchemaError(f"field {field!r}: no {part!r} in the schema")
    if const is not None:
        node.clear()
        node["const"] = const
    if enum:
        node.clear()
        node["enum"] = list(dict.fromkeys(enum))
    for keyword, limit in (("maxLength", max_length), ("maxItems", max_items)):
        if limit:
            node[keyword] = min(limit, node.get(keyword, limit))
    return out
