"""The check that an answer obeys its schema: one rule at a time, and the schemas that are sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmers_pipelines.llm.chat_form import lean, same_model
from llmers_pipelines.llm.fake import smallest
from llmers_pipelines.llm.schema_check import breach, violation
from llmers_pipelines.prompts.item_summary import ItemSummary

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
          "additionalProperties": False}  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad", "says"), [
    ({"type": "string", "maxLength": 2}, "ab", "abc", "3 characters"),
    ({"type": "string", "minLength": 2}, "ab", "a", "1 characters"),
    ({"type": "string", "pattern": "^a+$"}, "aa", "ab", "pattern"),
    ({"type": "integer"}, 3, "3", "no integer"),
    ({"type": "integer"}, 3, 3.5, "no integer"),
    ({"type": "integer"}, 3, True, "no integer"),
    ({"type": "number", "minimum": 0, "maximum": 1}, 0.5, 1.5, "range"),
    ({"type": "boolean"}, False, 0, "no boolean"),
    ({"type": "null"}, None, 0, "no null"),
    ({"enum": ["a", 1]}, 1, True, "none of the allowed"),
    ({"const": "x"}, "x", "y", 'not "x"'),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [1], [], "0 elements"),
    ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [1], [1, 2], "2 elements"),
    ({"type": "array", "items": {"type": "integer"}}, [1], [1, "2"], "answer[1] is no integer"),
    (OBJECT, {"a": 1}, {}, "lacks 'a'"),
    (OBJECT, {"a": 1}, {"a": 1, "b": 2}, "has 'b'"),
    (OBJECT, {"a": 1}, {"a": "1"}, "answer.a is no integer"),
    ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, None, "x", "no null"),
])  # fmt: skip
def test_each_rule(schema: dict[str, Any], good: Any, bad: Any, says: str) -> None:
    assert violation(schema, good) == ""
    assert says in violation(schema, bad)


def test_only_json_alone_obeys() -> None:
    assert breach(OBJECT, ' {"a": 1}\n') == ""
    for text in ('```json\n{"a": 1}\n```', 'Sure: {"a": 1}', '{"a": 1', "", "[" * 100_000):
        assert breach(OBJECT, text).startswith("not JSON alone"), text


def test_a_lean_schema_keeps_the_structure_of_a_real_one() -> None:
    schema = ItemSummary().row_schema({"item_id": "1", "title": "Salt Road"})
    assert schema is not None
    small = lean(schema)
    text = json.dumps(small)
    assert "maxLength" in json.dumps(schema)
    assert not [w for w in ("maxLength", "minLength", "minItems", "maxItems") if w in text]
    assert small["required"] == schema["required"] and small["additionalProperties"] is False
    assert violation(small, smallest(schema)) == ""


@pytest.mark.parametrize(("asked", "served", "same"), [
    ("gpt-x", "gpt-x", True), ("gpt-x", "GPT-X", True), ("gpt-x", "", True),
    ("gpt-x", "gpt-x-2026-01-31", True), ("gpt-x", "gpt-x-0613", True),
    ("gpt-x", "gpt-x-mini", False), ("gpt-x", "other", False), ("a.b", "axb-1", False),
])  # fmt: skip
def test_names_of_one_model(asked: str, served: str, same: bool) -> None:
    assert same_model(asked, served) is same
