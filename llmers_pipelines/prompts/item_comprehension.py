"""What a model makes of an item and its neighbourhood in a knowledge graph (CoLaKG, SIGIR 2025).

Rows are items with ``facts`` and ``related``, lists of lines as ``derive/item_facts.py`` makes
them. A row without them is asked from its own columns alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .checks import about_item, refusal, repetition, thin
from .describe import item_sentences
from .domains import domain_of
from .fields import DATA_RULE, as_data, cut_lines, fenced, item_lines, title_of, told
from .task import Context, Message, PromptTask, Row

_SYSTEM = """\
You describe {plural} for a recommender system. You are given one {noun}: its own data, facts \
about it from a knowledge graph, and other {plural} with which it shares such a fact.
Write one paragraph that
- says what the {noun} is, in the light of all that is given,
- adds what is commonly known where the data have a gap, if you are sure of it,
- says who would like it and why, and what its relations to the other {plural} tell about that.
Rules:
- Call the {noun} by its title.
- {least} to {words} words, plain sentences, no headings and no lists.
- {data_rule}
- Answer with the text alone."""


@dataclass(frozen=True)
class ItemComprehension(PromptTask):
    """One paragraph per item. ``fields`` chooses the columns that are told beside the graph.

    At most ``lines`` lines of the graph are told, facts before relations, each cut at 300
    characters.
    """

    produces: ClassVar[str] = "item_summaries"
    entity: ClassVar[str] = "item"
    system: ClassVar[str] = _SYSTEM
    fields: tuple[str, ...] = ()
    least: int = 150
    words: int = 200
    lines: int = 30

    def unaskable(self, row: Row, context: Context = None) -> str:
        own = item_lines(self._told(row, context)) or self._graph(row)
        return "" if own else "the item has no words to tell"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = self.system.format(
            noun=domain.noun, plural=domain.plural, least=self.least, words=self.words,
            data_rule=DATA_RULE.format(tag="item").replace("</item>", "</item>, and between "
                                                           "<graph> and </graph>,"),
        )  # fmt: skip
        content = fenced("item", item_lines(self._told(row, context)))
        if graph := self._graph(row):
            content += "\n" + fenced("graph", graph)
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        total = len(_lines(row))
        more = [f"graph: {self.lines} of {total} lines"] if total > self.lines else []
        return cut_lines(self._told(row, context)) + more

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        text = value["text"]
        reasons = (refusal(text), repetition(text), thin(text, [title_of(row)], least=3),
                   about_item(text, row))  # fmt: skip
        return [reason for reason in reasons if reason]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        sentences = item_sentences(self._told(row, context), domain_of(context))
        return {"text": " ".join([*sentences, *(f"{line}." for line in self._graph(row))])}

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["text"])

    def _told(self, row: Row, context: Context = None) -> dict[str, Any]:
        return told(row, self.fields, (context or {}).get("fields"))

    def _graph(self, row: Row) -> list[str]:
        return _lines(row)[: self.lines]


def _lines(row: Row) -> list[str]:
    """Return the lines of the graph as data, facts before relations."""
    told = [line for name in ("facts", "related") for line in row.get(name) or ()]
    return [text for line in told if (text := as_data(line, limit=300))]
