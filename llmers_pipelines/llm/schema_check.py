"""Whether an answer obeys its JSON schema, in the project's dialect (``prompts.schema``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "number": (int, float),
    "integer": int, "null": type(None),
}  # fmt: skip


def breach(schema: Mapping[str, Any], text: str) -> str:
    """Return where ``text`` breaks ``schema``, or "": constrained decoding writes JSON alone."""
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        return f"not JSON alone: {error}"
    return violation(schema, value)


def violation(schema: Mapping[str, Any], value: Any, where: str = "the answer") -> str:
    """Return the first rule of ``schema`` that ``value`` breaks, with its place, or ""."""
    if "anyOf" in schema:
        found = [violation(inner, value, where) for inner in schema["anyOf"]]
        return "" if "" in found else found[0]
    if "const" in schema and not _same(value, schema["const"]):
        return f"{where} is not {json.dumps(schema['const'], ensure_ascii=False)}"
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        return f"{where} is none of the allowed values"
    if (kind := schema.get("type")) and not _is(value, kind):
        return f"{where} is no {kind}"
    if isinstance(value, dict):
        return _object(schema, value, where)
    if isinstance(value, list):
        return _array(schema, value, where)
    if isinstance(value, str):
        return _string(schema, value, where)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if (low is not None and value < low) or (high is not None and value > high):
            return f"{where} is out of its range"
    return ""


def _object(schema: Mapping[str, Any], value: dict[str, Any], where: str) -> str:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where} lacks {name!r}"
    if schema.get("additionalProperties") is False and (more := sorted(set(value) - set(known))):
        return f"{where} has {more[0]!r}, which the schema does not know"
    found = (violation(known[n], v, f"{where}.{n}") for n, v in value.items() if n in known)
    return next(filter(None, found), "")


def _array(schema: Mapping[str, Any], value: list[Any], where: str) -> str:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return f"{where} has {len(value)} elements"
    inner = schema.get("items")
    found = (violation(inner, v, f"{where}[{n}]") for n, v in enumerate(value)) if inner else ()
    return next(filter(None, found), "")


def _string(schema: Mapping[str, Any], value: str, where: str) -> str:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return f"{where} has {len(value)} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{where} does not match its pattern"
    return ""


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
