"""The contract of a prompt task: what is asked, what an answer looks like, when it is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from ..plan import Component, canonical, sha, snake
from .fields import as_data
from .schema import answer_schema

Row = Mapping[str, Any]
Context = Mapping[str, Any] | None
Message = dict[str, Any]


class FreeText(BaseModel):
    """An answer without structure."""

    text: str


@dataclass(frozen=True)
class Parsed:
    """What parsing made of a raw answer: ``value`` when ``status`` is "ok", else a ``reason``."""

    value: dict[str, Any] | None
    status: str = "ok"  # or "invalid"
    reason: str = ""


@dataclass(frozen=True)
class PromptTask(Component):
    """One question, asked of a language model once per entity.

    ``context`` is what is equal for all rows of a run: ``domain`` (a name or words of its own, see
    ``domains``), ``fields`` (column -> kind, as the data set declares them), ``images`` (reads the
    cells of image columns, see ``pictures``; None where nobody looks at images).
    """

    produces: ClassVar[str] = ""  # asset prefix: item_summaries, user_profiles, ...
    entity: ClassVar[str] = "item"
    usual: ClassVar[str] = "ctr"  # splits that need no mention in the key of answers about users
    answer: ClassVar[type[BaseModel]] = FreeText
    published: ClassVar[type[BaseModel] | None] = None  # what ``resolved`` returns; None = answer
    system: ClassVar[str] = ""
    stop: ClassVar[tuple[str, ...]] = ()  # where an answer ends, beside the model's own end
    max_tokens: int = 400  # of one answer

    @property
    def id_column(self) -> str:
        return f"{self.entity}_id"

    @property
    def free_text(self) -> bool:
        return set(self.answer.model_fields) == {"text"}

    @property
    def prompt_revision(self) -> str:
        """Name, revision and settings of the task, short enough for a table's column."""
        settings = sha(canonical(self, inputs=False), 8)
        return f"{snake(type(self).__name__)}-r{self.revision}-{settings}"

    def room(self, wanted: int) -> int:
        """Return the most tokens of an answer; ``wanted`` is what is configured for all tasks."""
        return wanted or self.max_tokens

    def unaskable(self, row: Row, context: Context = None) -> str:
        """Return why nothing can be asked about this row, or ""."""
        return ""

    def unusable(self, row: Row, context: Context = None) -> str:
        """Return why this row's data are at fault, or ""; ``unaskable`` says so as well.

        Such a row is quarantined; other rows that cannot be asked have no answer.
        """
        return ""

    def render(self, row: Row, context: Context = None) -> list[Message]:
        """Return the messages: constant instructions first, the row's own data last."""
        raise NotImplementedError

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        """Return what ``render`` cuts off this row's data, a note each; none tells all of it."""
        return []

    def row_schema(self, row: Row) -> dict[str, Any] | None:
        """Return the JSON schema of this row's answer; None for free text."""
        return None if self.free_text else answer_schema(self.answer)

    def parse(self, raw: str) -> Parsed:
        """Return the answer's fields; never raises on content."""
        raw = without_thoughts(raw)
        if not raw:
            return Parsed(None, "invalid", "the answer is empty")
        if self.free_text:
            return Parsed({"text": raw})
        try:
            found = first_object(raw)
        except ValueError as error:
            return Parsed(None, "invalid", f"not valid JSON: {error}")
        try:
            return Parsed(self.answer.model_validate(found).model_dump())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the answer"
            return Parsed(None, "invalid", f"{place}: {first['msg']}")

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        """Return reasons to refuse a parsed answer, given the row; none accepts it."""
        return []

    def resolved(self, value: Mapping[str, Any], row: Row) -> Mapping[str, Any]:
        """Return an accepted answer as it is published, e.g. with ids in place of list numbers."""
        return value

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """Return the deterministic answer from metadata alone: the control of every LLM."""
        raise NotImplementedError

    def text(self, value: Mapping[str, Any]) -> str:
        """Return the accepted answer as one text, as encoders and people read it."""
        return str(value["text"])

    def write(self, value: Mapping[str, Any]) -> str:
        """Return ``value`` in the raw form that a model would answer in; ``parse`` undoes it."""
        return str(value["text"]) if self.free_text else json.dumps(value, ensure_ascii=False)

    def repair(self, reason: str) -> str:
        """Return the message that asks once more after a refused answer."""
        form = "" if self.free_text else " Answer with the JSON object alone."
        return f"That answer cannot be used: {as_data(reason, limit=300)}. Answer again.{form}"


def without_thoughts(raw: str) -> str:
    """Return the answer proper: reasoning blocks and an enclosing code fence removed."""
    text = re.sub(r"<think>.*?</think>", "", raw, flags=re.DOTALL)
    text = text.rsplit("</think>", 1)[-1].strip()
    if found := re.fullmatch(r"```\w*\n(.*?)\n?```", text, flags=re.DOTALL):
        text = found[1].strip()
    return text


def first_object(text: str) -> dict[str, Any]:
    """Return the first JSON object in ``text``, whatever surrounds it; ``ValueError`` if none."""
    start = text.find("{")
    if start < 0:
        raise ValueError(f"no object in {text[:60]!r}")
    try:
        # Not strict: grammars and models alike let raw control characters into strings.
        found, _ = json.JSONDecoder(strict=False).raw_decode(text, start)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return found
