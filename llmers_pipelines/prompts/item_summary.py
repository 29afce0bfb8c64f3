"""A structured summary of an item: what it is, its themes, its mood and its audience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, field_validator

from .checks import about_item, normal, refusal, repetition, thin
from .describe import frequent_words, item_sentences
from .domains import domain_of
from .fields import (
    CATEGORY,
    DATA_RULE,
    DESCRIPTION,
    SIZE,
    TAGLINE,
    as_data,
    cut_lines,
    fenced,
    item_lines,
    of_role,
    title_of,
    told,
)  # fmt: skip
from .schema import answer_schema, narrow
from .task import Context, Message, PromptTask, Row

_SYSTEM = """\
You prepare item summaries for a recommender system. You are given one {noun} and answer with one \
JSON object:
{{"summary": "...", "themes": ["..."], "mood": "...", "audience": "..."}}
- summary: two or three sentences that say what the {noun} is and what sets it apart; call it by \
its title.
- themes: two to six short lower-case phrases, each different.
- mood: one to three words for its feeling or style.
- audience: one short phrase for the people who would choose it.
Rules:
- Use what the data says and what is commonly known about this very {noun}; never invent names.
- No praise, no sales talk.
- {data_rule}
- Answer with the JSON object alone."""

# Words of a category or description -> the mood that they suggest; the first match wins.
_MOODS = (
    ("horror", "dark and frightening"), ("gothic", "dark and frightening"), ("ghost", "eerie"),
    ("thriller", "tense"), ("mystery", "puzzling"), ("detective", "puzzling"), ("crime", "gritty"),
    ("noir", "dark"), ("war", "grave"), ("comedy", "light-hearted"), ("humor", "light-hearted"),
    ("humour", "light-hearted"), ("satire", "biting"), ("children", "playful"),
    ("animation", "playful"), ("musical", "cheerful"), ("romance", "warm"), ("love", "warm"),
    ("adventure", "exciting"), ("action", "exciting"), ("fantasy", "wondrous"),
    ("fairy", "wondrous"), ("myth", "grand"), ("epic", "grand"), ("fiction", "imaginative"),
    ("sci", "imaginative"), ("poetry", "lyrical"), ("psychological", "intense"),
    ("drama", "serious"), ("philosophy", "reflective"), ("religion", "reflective"),
    ("memoirs", "reflective"), ("documentary", "informative"), ("history", "informative"),
    ("science", "informative"), ("biography", "informative"), ("luxury", "elegant"),
    ("professional", "practical"), ("natural", "natural"), ("organic", "natural"),
)  # fmt: skip
_AUDIENCES = (
    ("children", "children and families"), ("kids", "children and families"),
    ("baby", "parents of small children"), ("women", "women"), ("men", "men"),
    ("teen", "young people"), ("young", "young people"), ("professional", "professionals"),
    ("office", "people who work in an office"), ("school", "pupils and teachers"),
)  # fmt: skip


class ItemSummaryAnswer(BaseModel):
    summary: str = Field(min_length=1, max_length=700)
    themes: list[Annotated[str, Field(max_length=40)]] = Field(min_length=1, max_length=6)
    mood: str = Field(max_length=60)
    audience: str = Field(max_length=120)

    @field_validator("themes", mode="before")
    @classmethod
    def _few_short_different(cls, given: Any) -> Any:
        """Split, clip and dedupe: real answers exceed limits that are no reason to pay again."""
        if isinstance(given, str):
            given = given.split(",")
        if not isinstance(given, list):
            return given
        short = (" ".join(str(theme).lower().split())[:40].strip(" .") for theme in given)
        return list(dict.fromkeys(filter(None, short)))[:6]


@dataclass(frozen=True)
class ItemSummary(PromptTask):
    """One JSON answer per item. ``fields`` chooses the columns that are told."""

    produces: ClassVar[str] = "item_summaries"
    entity: ClassVar[str] = "item"
    answer: ClassVar[type[BaseModel]] = ItemSummaryAnswer
    system: ClassVar[str] = _SYSTEM
    fields: tuple[str, ...] = ()

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if item_lines(self._told(row, context)) else "the item has no words to tell"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        system = self.system.format(
            noun=domain_of(context).noun, data_rule=DATA_RULE.format(tag="item")
        )
        lines = item_lines(self._told(row, context))
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": fenced("item", lines)},
        ]

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        return cut_lines(self._told(row, context))

    def row_schema(self, row: Row) -> dict[str, Any]:
        """Return the answer's schema; an item that says little of itself may not be spun out."""
        limit = 600 if of_role(row, DESCRIPTION) else 300
        return narrow(answer_schema(self.answer), "summary", max_length=limit)

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        whole = self.text(value)
        reasons = [
            refusal(value["summary"]),
            repetition(whole),
            thin(whole, [title_of(row)], least=3),
            about_item(whole, row),
        ]
        for name in ("mood", "audience"):
            if not normal(value[name]):
                reasons.append(f"{name}: the answer has no words")
        return [reason for reason in reasons if reason]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        row = self._told(row, context)
        kinds = [kind.lower() for kind in of_role(row, CATEGORY)]
        texts = [*of_role(row, DESCRIPTION), *of_role(row, TAGLINE)]
        by_kind = set(normal(" ".join(kinds)).split())
        named = by_kind | set(normal(title_of(row)).split())
        words = named | set(normal(" ".join(texts)).split())
        summary = as_data(" ".join(item_sentences(row, domain_of(context))), limit=600)
        return {
            "summary": summary,
            "themes": list(dict.fromkeys(
                [k[:40] for k in kinds[:3]] + frequent_words(texts or [title_of(row)], top=3)
            ))[:6] or ["general"],
            "mood": _first(_MOODS, by_kind) or _first(_MOODS, words) or "neutral",
            "audience": _first(_AUDIENCES, named) or _lovers(kinds) or _general(row),
        }  # fmt: skip

    def _told(self, row: Row, context: Context = None) -> dict[str, Any]:
        return told(row, self.fields, (context or {}).get("fields"))

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(
            f"{value['summary']} Themes: {', '.join(value['themes'])}. Mood: {value['mood']}. "
            f"Audience: {value['audience']}."
        )


def _first(table: tuple[tuple[str, str], ...], words: set[str]) -> str:
    return next((meaning for word, meaning in table if word in words), "")


def _lovers(kinds: list[str]) -> str:
    return f"people who like {' and '.join(kinds[:2])}"[:120] if kinds else ""


def _general(row: Row) -> str:
    return "households" if of_role(row, SIZE) else "a general audience"
