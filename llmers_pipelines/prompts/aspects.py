"""Aspects that reviews speak of: a chain of questions (SAGCN, arXiv:2312.16275).

``AspectWords``: a sample of reviews -> words for the aspects. ``ReviewAspects``: one review and
the kept aspects -> the part of the review that speaks of each. ``ItemAspects``: the same in one
step per item, liked and disliked, where answers exist for items alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from .checks import content_words, normal, refusal
from .describe import frequent_words
from .domains import domain_of
from .fields import DATA_RULE, DESCRIPTION, as_data, fenced, item_lines, of_role, told
from .schema import answer_schema, narrow
from .task import Context, Message, Parsed, PromptTask, Row

Phrase = Annotated[str, Field(max_length=40)]
_NONE = frozenset({"", "none", "no", "n a", "na", "not mentioned", "nothing", "null", "unknown"})
_DATA = DATA_RULE.replace("catalog data", "reviews").replace("facts only", "reviews only")

_WORDS = """\
You are given reviews of {plural}. Name the aspects of a {noun} that they speak of: what is \
judged, not the judgement.
Answer with one JSON object: {{"aspects": ["...", "..."]}}
Rules:
- One or two lower-case words per aspect, each aspect once, at most {most}.
- Aspects that fit many {plural}, not names of this one's parts or persons.
- {data_rule}
- Answer with the JSON object alone."""

_REVIEW = """\
You are given a review of a {noun} and a list of aspects. For each aspect that the review speaks \
of, copy the words of the review that do.
Answer with one JSON object: {{"mentions": [{{"aspect": "...", "text": "..."}}]}}
Rules:
- Only aspects of the list; leave out those that the review does not speak of.
- The words of the review, at most twenty; nothing of your own.
- {data_rule}
- Answer with the JSON object alone."""

_ITEM = """\
You are given a {noun} and, where there are any, reviews of it. Name what people like about it and \
what they dislike.
Answer with one JSON object: {{"liked": ["..."], "disliked": ["..."]}}
Rules:
- At most {most} short phrases each; an empty list where there is nothing.
- What the reviews say; without reviews, what is commonly known of this very {noun}.
- {data_rule}
- Answer with the JSON object alone."""


class AspectWordsAnswer(BaseModel):
    aspects: list[Phrase] = Field(min_length=1, max_length=20)


@dataclass(frozen=True)
class AspectWords(PromptTask):
    """At most ``most`` words for the aspects of one sample of reviews; each cut at ``limit``.

    Rows: sample_id, reviews, and of_users, of_items (whose they are).
    """

    produces: ClassVar[str] = "kg_edges"
    entity: ClassVar[str] = "sample"
    answer: ClassVar[type[BaseModel]] = AspectWordsAnswer
    system: ClassVar[str] = _WORDS
    most: int = 12
    limit: int = 600

    def pairs(self, row: Row) -> list[tuple[str, str]]:
        return list(zip(row["of_users"], row["of_items"], strict=True))

    def unaskable(self, row: Row, context: Context = None) -> str:
        told = any(map(as_data, row.get("reviews") or ()))
        return "" if told else "the sample has no words"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = self.system.format(noun=domain.noun, plural=domain.plural, most=self.most,
                                    data_rule=_DATA.format(tag="reviews"))  # fmt: skip
        lines = [f"- {t}" for r in row["reviews"] if (t := as_data(r, limit=self.limit))]
        return [{"role": "system", "content": system},
                {"role": "user", "content": fenced("reviews", lines)}]  # fmt: skip

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        cut = sum(len(as_data(r)) > self.limit for r in row["reviews"])
        return [f"reviews: {cut} of {len(row['reviews'])} cut at {self.limit} characters"] * (
            cut > 0
        )

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        said = [refusal(a) for a in value["aspects"]]
        return [r for r in said if r] or ([] if any(map(normal, value["aspects"]))
                                          else ["the answer names no aspect"])  # fmt: skip

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """Return the words that most reviews share."""
        return {"aspects": frequent_words(list(row["reviews"]), top=self.most) or ["quality"]}

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(", ".join(value["aspects"]))


class Mention(BaseModel):
    aspect: str = Field(max_length=40)
    text: str = Field(max_length=240)


class ReviewAspectsAnswer(BaseModel):
    mentions: list[Mention] = Field(max_length=16)


class ReviewAspectsRow(BaseModel):
    """What is published: aspects in the order of the vocabulary, and the part for each."""

    aspects: list[str]
    parts: list[str]


@dataclass(frozen=True)
class ReviewAspects(PromptTask):
    """The part of a review that speaks of each kept aspect, or none.

    Rows: review_id, user_id, item_id, text, aspects (the list that is asked about). A part that is
    no text ("none"), whose aspect is not asked about, or of whose content words fewer than half
    stand in the review, is left out: refusals count as none.
    """

    produces: ClassVar[str] = "kg_edges"
    entity: ClassVar[str] = "review"
    answer: ClassVar[type[BaseModel]] = ReviewAspectsAnswer
    published: ClassVar[type[BaseModel] | None] = ReviewAspectsRow
    system: ClassVar[str] = _REVIEW
    limit: int = 2000

    def pairs(self, row: Row) -> list[tuple[str, str]]:
        return [(row["user_id"], row["item_id"])]

    def unaskable(self, row: Row, context: Context = None) -> str:
        if not as_data(row.get("text")):
            return "the review has no words"
        return "" if row.get("aspects") else "there is no aspect to ask about"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        system = self.system.format(noun=domain_of(context).noun,
                                    data_rule=_DATA.format(tag="review"))  # fmt: skip
        aspects = ", ".join(as_data(a) for a in row["aspects"])
        review = fenced("review", [as_data(row["text"], limit=self.limit)])
        return [{"role": "system", "content": system},
                {"role": "user", "content": f"Aspects: {aspects}\n{review}"}]  # fmt: skip

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        size = len(as_data(row["text"]))
        return [f"review: {self.limit} of {size} characters"] if size > self.limit else []

    def row_schema(self, row: Row) -> dict[str, Any]:
        schema = narrow(answer_schema(self.answer), "mentions[].aspect", enum=list(row["aspects"]))
        return narrow(schema, "mentions", max_items=len(row["aspects"]))

    def resolved(self, value: Mapping[str, Any], row: Row) -> dict[str, Any]:
        said = set(content_words(as_data(row["text"])))
        asked = {normal(a): a for a in row["aspects"]}
        parts: dict[str, str] = {}
        for mention in value["mentions"]:
            aspect, text = asked.get(normal(mention["aspect"])), as_data(mention["text"])
            words = content_words(text)
            if aspect is None or normal(text) in _NONE or refusal(text) or not words:
                continue
            if 2 * sum(w in said for w in words) >= len(words):
                parts.setdefault(aspect, text)
        kept = [a for a in row["aspects"] if a in parts]
        return {"aspects": kept, "parts": [parts[a] for a in kept]}

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """Return the sentences that hold the aspect's own word."""
        sentences = re.split(r"(?<=[.!?;])\s+", as_data(row["text"], limit=self.limit))
        found = []
        for aspect in row["aspects"]:
            words = set(normal(aspect).split())
            part = next((s for s in sentences if words & set(normal(s).split())), "")
            if part:
                found.append({"aspect": aspect, "text": part[:240]})
        return {"mentions": found}

    def text(self, value: Mapping[str, Any]) -> str:
        """Return the parts of an answer, as it came or as it is published."""
        if "mentions" in value:
            parts = [(m["aspect"], m["text"]) for m in value["mentions"]]
        else:
            parts = list(zip(value["aspects"], value["parts"], strict=True))
        return as_data("; ".join(f"{a}: {p}" for a, p in parts))


class ItemAspectsAnswer(BaseModel):
    liked: list[Annotated[str, Field(max_length=200)]] = Field(max_length=15)
    disliked: list[Annotated[str, Field(max_length=200)]] = Field(max_length=15)


@dataclass(frozen=True)
class ItemAspects(PromptTask):
    """What people like and dislike about an item, at most ``most`` phrases each.

    Rows may bring ``reviews``, a list of texts. An answer may also come as "- " lines below [Like]
    and [Dislike], as recorded ones do.
    """

    produces: ClassVar[str] = "kg_edges"
    entity: ClassVar[str] = "item"
    answer: ClassVar[type[BaseModel]] = ItemAspectsAnswer
    system: ClassVar[str] = _ITEM
    fields: tuple[str, ...] = ()
    most: int = 8
    reviews: int = 20

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if item_lines(self._told(row, context)) else "the item has no words to tell"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        system = self.system.format(noun=domain_of(context).noun, most=self.most,
                                    data_rule=DATA_RULE.format(tag="item"))  # fmt: skip
        content = fenced("item", item_lines(self._told(row, context)))
        said = [t for r in list(row.get("reviews") or ())[: self.reviews]
                if (t := as_data(r, limit=600))]  # fmt: skip
        if said:
            content += "\n" + fenced("reviews", [f"- {t}" for t in said])
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        total = len(row.get("reviews") or ())
        return [f"reviews: {self.reviews} of {total}"] if total > self.reviews else []

    def parse(self, raw: str) -> Parsed:
        """Return both lists, of JSON or of lines below [Like] and [Dislike]."""
        if not re.search(r"^[\s*#]*\[(?:dis)?like\]", raw, re.IGNORECASE | re.MULTILINE):
            return super().parse(raw)
        found: dict[str, list[str]] = {"liked": [], "disliked": []}
        side = ""
        for line in raw.splitlines():
            if head := re.fullmatch(r"[\s*#]*\[(dis)?like\][\s*:]*", line, re.IGNORECASE):
                side = "disliked" if head[1] else "liked"
            elif side and len(found[side]) < 15:
                told = line.strip().lstrip("-*• ").strip()
                found[side] += [told[:200]] * (normal(told) not in _NONE)
        return Parsed(dict(found))

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        phrases = [*value["liked"], *value["disliked"]]
        if not any(map(normal, phrases)):
            return ["the answer names nothing that is liked or disliked"]
        return [r for p in phrases[:1] if (r := refusal(p))]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        texts = [*(row.get("reviews") or ()), *of_role(row, DESCRIPTION)]
        words = frequent_words(list(map(str, texts)) or [str(row.get("title") or "")], top=3)
        return {"liked": words or ["general appeal"], "disliked": []}

    def text(self, value: Mapping[str, Any]) -> str:
        sides = (("liked", value["liked"]), ("disliked", value["disliked"]))
        return as_data("; ".join(f"{name}: {', '.join(said)}" for name, said in sides if said))

    def _told(self, row: Row, context: Context = None) -> dict[str, Any]:
        return told(row, self.fields, (context or {}).get("fields"))
