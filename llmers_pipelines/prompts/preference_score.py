"""How well an item fits a user's profile, from 0 to 10 (LLMHD, arXiv:2409.10343).

Rows are ``{"pair_id", "user_id", "item_id", "label", "profile", "profile_version", "item_text"}``;
which of them was clicked is not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from .checks import content_words
from .domains import domain_of
from .fields import DATA_RULE, as_data, fenced
from .schema import answer_schema, narrow
from .task import Context, Message, PromptTask, Row

BEST = 10

_SYSTEM = """\
You judge how well one {noun} fits one user of a recommender system. You are given a profile of \
the user and a description of the {noun}. Answer with one JSON object:
{{"score": number}}
Rules:
- The score is a whole number from 0 (the user would not want it) to {best} (exactly what the user \
looks for).
- Judge from the two texts alone.
- {data_rule}
- Answer with the JSON object alone."""


class Score(BaseModel):
    score: Annotated[int, Field(ge=0, le=BEST)]


class ScoredPair(BaseModel):
    """What is published."""

    score: int
    user_id: str
    item_id: str
    label: int
    profile_version: int


@dataclass(frozen=True)
class PreferenceScore(PromptTask):
    """One score per pair. ``round`` names the round that asks; it is no part of the prompt."""

    produces: ClassVar[str] = "sample_scores"
    entity: ClassVar[str] = "pair"
    answer: ClassVar[type[BaseModel]] = Score
    published: ClassVar[type[BaseModel] | None] = ScoredPair
    system: ClassVar[str] = _SYSTEM
    round: int = 1
    limit: int = 1200  # characters told of each text
    max_tokens: int = 24

    def pairs(self, row: Row) -> list[tuple[str, str]]:
        """Return nothing: a pair may be a sampled negative, and its label is not told."""
        return []

    def unaskable(self, row: Row, context: Context = None) -> str:
        for name, what in (("profile", "the user has no profile"),
                           ("item_text", "the item has no text")):  # fmt: skip
            if not as_data(row.get(name)):
                return what
        return ""

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        rule = DATA_RULE.format(tag="profile").replace(
            "</profile>", "</profile>, and between <item> and </item>,"
        )
        system = self.system.format(noun=domain.noun, best=BEST, data_rule=rule)
        told = (as_data(row[name], limit=self.limit) for name in ("profile", "item_text"))
        profile, item = told
        content = f"{fenced('profile', [profile])}\n{fenced('item', [item])}"
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        sizes = {name: len(as_data(row.get(name))) for name in ("profile", "item_text")}
        return [f"{name}: cut at {self.limit} of {size} characters"
                for name, size in sizes.items() if size > self.limit]  # fmt: skip

    def row_schema(self, row: Row) -> dict[str, Any]:
        return narrow(answer_schema(self.answer), "score", enum=list(range(BEST + 1)))

    def resolved(self, value: Mapping[str, Any], row: Row) -> dict[str, Any]:
        return {
            **value, "user_id": str(row["user_id"]), "item_id": str(row["item_id"]),
            "label": int(row.get("label", 0)), "profile_version": int(row["profile_version"]),
        }  # fmt: skip

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """Ten times the share of the item's words that the profile holds as well."""
        profile = set(content_words(as_data(row.get("profile"))))
        item = content_words(as_data(row.get("item_text")))
        return {"score": round(BEST * sum(w in profile for w in item) / max(1, len(item)))}

    def text(self, value: Mapping[str, Any]) -> str:
        return str(value["score"])
