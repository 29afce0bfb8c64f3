"""A node's description rewritten from those of its neighbours in the graph (GaCLLM).

Rows have ``own``, ``neighbours`` (texts of the round before) and ``neighbour_ids``, as
``derive/graph_rounds.py`` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .checks import refusal, repetition, thin
from .domains import domain_of
from .fields import DATA_RULE, as_data, fenced
from .task import Context, Message, PromptTask, Row

_USER = """\
You describe one person for a recommender system. You are given what is known of the person so far \
and descriptions of {plural} that the person has {did}. Rewrite the description of the person: \
clearer and more complete than before, and consistent with those {plural}."""
_ITEM = """\
You describe one {noun} for a recommender system. You are given its description so far and \
descriptions of people who have {did} it. Rewrite the description of the {noun}: clearer and more \
complete than before, saying as well whom it suits."""
_RULES = """
Rules:
- Use what is given alone; where something is not said, leave it out.
- Plain sentences, at most {words} words, no headings and no lists.
- {data_rule}
- Answer with the text alone."""


@dataclass(frozen=True)
class _Rewrite(PromptTask):
    """``round`` names the round that asks; it is no part of the prompt."""

    round: int = 1
    words: int = 120
    limit: int = 400  # characters told of each neighbour

    def unaskable(self, row: Row, context: Context = None) -> str:
        if as_data(row.get("own")) or any(map(as_data, row.get("neighbours") or ())):
            return ""
        return f"neither the {self.entity} nor a neighbour has a text"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = (self.system + _RULES).format(
            noun=domain.noun, plural=domain.plural, did=domain.did, words=self.words,
            data_rule=DATA_RULE.format(tag="own").replace(
                "</own>", "</own>, and between <neighbours> and </neighbours>,"
            ),
        )  # fmt: skip
        own = as_data(row.get("own")) or "nothing yet"
        content = fenced("own", [own])
        around = [t for n in row.get("neighbours") or () if (t := as_data(n, limit=self.limit))]
        if around:
            content += "\n" + fenced("neighbours", [f"- {text}" for text in around])
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        around = [as_data(n) for n in row.get("neighbours") or ()]
        cut = sum(len(text) > self.limit for text in around)
        return [f"neighbours: {cut} of {len(around)} cut at {self.limit} characters"] * (cut > 0)

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        text = value["text"]
        reasons = [refusal(text), repetition(text), thin(text, (), least=3)]
        if len(text.split()) > 3 * self.words:
            reasons.append(f"the answer has {len(text.split())} words, {self.words} are asked for")
        return [reason for reason in reasons if reason]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """Return the own text with the start of each neighbour's: concatenation, no rewriting."""
        around = [as_data(n, limit=60) for n in row.get("neighbours") or ()]
        own = as_data(row.get("own"), limit=300)
        return {"text": as_data("; ".join(filter(None, [own, *around])), limit=900)}

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["text"])


@dataclass(frozen=True)
class RewriteUser(_Rewrite):
    """The person's description of the next round, one text per user."""

    produces: ClassVar[str] = "user_profiles"
    entity: ClassVar[str] = "user"
    usual: ClassVar[str] = "sequential"
    system: ClassVar[str] = _USER

    def pairs(self, row: Row) -> list[tuple[str, str]]:
        return [(row["user_id"], item) for item in row.get("neighbour_ids") or ()]


@dataclass(frozen=True)
class RewriteItem(_Rewrite):
    """The item's description of the next round, one text per item."""

    produces: ClassVar[str] = "item_summaries"
    entity: ClassVar[str] = "item"
    usual: ClassVar[str] = "sequential"
    system: ClassVar[str] = _ITEM

    def pairs(self, row: Row) -> list[tuple[str, str]]:
        return [(user, row["item_id"]) for user in row.get("neighbour_ids") or ()]
