"""Answer schemas: the dialect that every engine takes, and narrowing per row."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from llmers_pipelines.prompts.schema import SchemaError, answer_schema, check_schema, narrow

Short = Annotated[str, Field(max_length=20)]


class Part(BaseModel):
    """Nested, so that pydantic writes a reference."""

    name: Short = Field(description="dropped")
    weight: float = 0.5


class Whole(BaseModel):
    kind: Literal["a", "b"]
    parts: list[Part] = Field(max_length=3)
    note: Short | None = None


def test_references_are_inlined_and_notes_dropped() -> None:
    assert answer_schema(Whole) == {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["a", "b"]},
            "parts": {
                "type": "array",
                "maxItems": 3,
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "maxLength": 20},
                        "weight": {"type": "number"},
                    },
                    "required": ["name", "weight"],
                    "additionalProperties": False,
                },
            },
            "note": {"anyOf": [{"type": "string", "maxLength": 20}, {"type": "null"}]},
        },
        "required": ["kind", "parts", "note"],
        "additionalProperties": False,
    }


def test_a_caller_cannot_change_the_schema_of_others() -> None:
    answer_schema(Whole)["properties"].clear()
    assert answer_schema(Whole)["properties"]


def test_keywords_outside_the_dialect_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"x\.tags: keyword 'uniqueItems'"):
        check_schema({"type": "object", "properties": {"tags": {
            "type": "array", "items": {"const": 1}, "uniqueItems": True}}}, "x")  # fmt: skip


def test_a_string_without_an_end_is_refused() -> None:
    class Endless(BaseModel):
        tags: list[str]

    with pytest.raises(SchemaError, match=r"Endless\.tags\[\].*needs maxLength"):
        answer_schema(Endless)


def test_an_open_object_is_refused() -> None:
    class Open(BaseModel):
        anything: dict[str, int]

    with pytest.raises(SchemaError):
        answer_schema(Open)


def test_narrow_per_row() -> None:
    schema = answer_schema(Whole)
    assert narrow(schema, "kind", const="a")["properties"]["kind"] == {"const": "a"}
    names = narrow(schema, "parts[].name", enum=["x", "y", "x"])
    assert names["properties"]["parts"]["items"]["properties"]["name"] == {"enum": ["x", "y"]}
    bound = narrow(schema, "parts", max_items=9)
    assert bound["properties"]["parts"]["maxItems"] == 3  # limits only become smaller
    bound = narrow(schema, "parts[].name", max_length=5)
    assert bound["properties"]["parts"]["items"]["properties"]["name"]["maxLength"] == 5
    assert schema == answer_schema(Whole)
    with pytest.raises(SchemaError, match="no 'colour'"):
        narrow(schema, "colour", const="red")
