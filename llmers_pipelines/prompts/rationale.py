"""Why a user chooses, in three steps, from the history before a cut (SLIM, WWW 2024).

A teacher reasons step by step; a tuned student is asked in one sentence and writes alike. Both see
the oldest share of a user's training rows alone, so that what follows may be learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel

from ..data.cuts import cut_of
from ..plan import PlanError
from .checks import refusal, repetition, thin
from .domains import domain_of
from .fields import DATA_RULE, as_data, fenced, title_of
from .habits import habit_sentences
from .history import entries, entry_line, newest
from .task import Context, Message, Parsed, PromptTask, Row, without_thoughts

STEPS = ("Preferences:", "Categories:", "Suggestions:")

_TEACHER = """\
You reason about what one user of a recommender system likes. You are given {plural} that the user \
has {did}, in order of time, oldest first. Answer in three lines:
Preferences: what the history says of the user's taste.
Categories: the categories, makers or brands that follow from it.
Suggestions: kinds of {plural}, or particular ones, that the user may choose next.
{data_rule}
- Answer with the three lines alone."""
_STUDENT = """\
You are given {plural} that one user has {did}, oldest first. Write the user's preferences, \
categories and suggestions.
{data_rule}"""


class Reasoned(BaseModel):
    """A rationale and how many of the three steps it has."""

    text: str
    steps: int


class RationaleRow(BaseModel):
    """What is published beside the text: steps, and the training rows that it was written from."""

    steps: int
    cutoff: int


@dataclass(frozen=True)
class UserRationale(PromptTask):
    """One rationale per user, from the oldest ``share`` of the user's training rows.

    Of these the ``max_items`` newest are told. A teacher's answer without one of the three steps is
    refused, and so is one that names an item which the user meets behind the cut. ``brief`` is the
    question to a student, of whom any text is taken.
    """

    produces: ClassVar[str] = "rationales"
    entity: ClassVar[str] = "user"
    usual: ClassVar[str] = "sequential"
    answer: ClassVar[type[BaseModel]] = Reasoned
    published: ClassVar[type[BaseModel] | None] = RationaleRow
    max_tokens: int = 300
    share: float = 0.7
    max_items: int = 20
    history_tokens: int = 1000
    brief: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.max_items < 1:
            raise PlanError(
                f"UserRationale(share={self.share}, max_items={self.max_items}): share between 0 "
                "and 1, at least 1 item"
            )

    def room(self, wanted: int) -> int:
        """Return a student's own bound: it learned answers of that length."""
        return self.max_tokens if self.brief else super().room(wanted)

    def known(self, row: Row) -> Sequence[Mapping[str, Any]]:
        """Return the rows before the cut."""
        history = entries(row)
        return history[: cut_of(len(history), self.share)]

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if any(map(title_of, self.known(row))) else "the user's history is empty"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        shown = newest({"history": self.known(row)}, self.max_items, self.history_tokens)
        system = (_STUDENT if self.brief else _TEACHER).format(
            plural=domain.plural, did=domain.did, data_rule=DATA_RULE.format(tag="history")
        )
        lines = [f"{n}. {entry_line(e, context)}" for n, e in enumerate(shown, start=1)]
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": fenced("history", lines)},
        ]

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        known = self.known(row)
        told, total = newest({"history": known}, self.max_items, self.history_tokens), entries(row)
        if len(told) == len(total):
            return []
        return [f"history: {len(told)} of {len(total)} entries, none behind entry {len(known)}"]

    def row_schema(self, row: Row) -> dict[str, Any] | None:
        return None

    def parse(self, raw: str) -> Parsed:
        text = without_thoughts(raw)
        if not text:
            return Parsed(None, "invalid", "the answer is empty")
        places = [text.find(step) for step in STEPS]
        found = sum(at >= 0 for at in places)
        if not self.brief and (found < len(STEPS) or places != sorted(places)):
            absent = next((s for s, at in zip(STEPS, places, strict=True) if at < 0), "")
            why = f"the step {absent!r} is missing" if absent else "the steps are out of order"
            return Parsed(None, "invalid", why)
        return Parsed({"text": text, "steps": found})

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        text, known = value["text"].casefold(), self.known(row)
        if self.brief:
            return []
        reasons = [refusal(value["text"]), repetition(value["text"]), thin(value["text"], (), 6)]
        before = {title_of(e).casefold() for e in known}
        after = [title_of(e).casefold() for e in entries(row)[len(known) :]]
        named = [t for t in after if len(t) > 4 and t not in before and t in text]
        if named:
            reasons.append(f"an item is named that the user meets behind the cut: {named[0]!r}")
        return [reason for reason in reasons if reason]

    def resolved(self, value: Mapping[str, Any], row: Row) -> Mapping[str, Any]:
        return {**value, "cutoff": len(self.known(row))}

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        said = habit_sentences(self.known(row), domain_of(context))
        parts = (said[0], " ".join(said[1:-1]) or "no kind stands out.", said[-1])
        told = [f"{step} {part}" for step, part in zip(STEPS, parts, strict=True)]
        return {"text": "\n".join(told), "steps": len(STEPS)}

    def write(self, value: Mapping[str, Any]) -> str:
        return str(value["text"])

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["text"])
