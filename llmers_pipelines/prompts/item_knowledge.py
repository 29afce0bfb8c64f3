"""Factual knowledge about an item along the domain's factors (KAR, RecSys 2024, item side)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .checks import about_item, refusal, repetition, thin
from .describe import item_sentences
from .domains import domain_of
from .fields import DATA_RULE, as_data, cut_lines, fenced, item_lines, title_of, told
from .task import Context, Message, PromptTask, Row

_NOUNS = "movie film book novel product item game track song article story"
_SYSTEM = """\
You write catalog knowledge for a recommender system. You are given one {noun} and tell what is \
known about it, so that the system can judge who would like it.
Go through these factors in this order: {factors}.
Rules:
- Call the {noun} by its title.
- State facts that you are sure of. Leave a factor out rather than guess.
- No praise, no sales talk, no advice to the reader.
- Plain sentences, at most {words} words, no headings and no lists.
- {data_rule}
- Answer with the text alone."""


@dataclass(frozen=True)
class ItemKnowledge(PromptTask):
    """One text per item: what a language model knows about it, factor by factor.

    ``factors`` replaces the domain's list; ``fields`` chooses the columns that are told.
    """

    produces: ClassVar[str] = "item_summaries"
    entity: ClassVar[str] = "item"
    system: ClassVar[str] = _SYSTEM
    factors: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    words: int = 150

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if item_lines(self._told(row, context)) else "the item has no words to tell"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = self.system.format(
            noun=domain.noun, factors=", ".join(self.factors or domain.factors), words=self.words,
            data_rule=DATA_RULE.format(tag="item"),
        )  # fmt: skip
        lines = item_lines(self._told(row, context))
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": fenced("item", lines)},
        ]

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        return cut_lines(self._told(row, context))

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        text = value["text"]
        reasons = (
            refusal(text),
            repetition(text),
            thin(text, [title_of(row), _NOUNS], least=3),
            about_item(text, row),
        )
        return [reason for reason in reasons if reason]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        return {"text": " ".join(item_sentences(self._told(row, context), domain_of(context)))}

    def _told(self, row: Row, context: Context = None) -> dict[str, Any]:
        return told(row, self.fields, (context or {}).get("fields"))

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["text"])
