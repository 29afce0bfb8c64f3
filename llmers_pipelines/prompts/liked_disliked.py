"""Liked and disliked items among a user's candidates (LLMRec, WSDM 2024, implicit augmentation).

Rows are ``{"user_id", "history": [...], "candidates": [...]}``: the training history, oldest entry
first, and the items that a conventional model offers. The model answers with numbers of that list;
what is published are the items behind the numbers, so an invented item is impossible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, Field

from .checks import content_words
from .domains import domain_of
from .fields import BRAND, CATEGORY, CREATOR, DATA_RULE, as_data, fenced, of_role, title_of
from .history import entries, entry_line, newest, opinion
from .schema import answer_schema, narrow
from .task import Context, Message, PromptTask, Row

_SYSTEM = """\
You judge which {plural} one user of a recommender system would like. You are given the {plural} \
that the user has {did}, in order of time, oldest first{rated}, and a numbered list of candidates.
Choose from the candidates alone: {the_liked} and {the_disliked}. Answer with one JSON object of \
their numbers:
{{"liked": [{form}], "disliked": [{form}]}}
Rules:
- Judge from the given history alone; later {plural} weigh more than earlier ones.
- Use each number at most once, and only numbers of the list.
- {data_rule}
- Answer with the JSON object alone."""

_DATA_RULE = DATA_RULE.format(tag="history").replace(
    "</history>", "</history>, and between <candidates> and </candidates>,"
)


def _listed(given: Any) -> Any:
    """A single number is a list of one: no reason to pay for the answer again."""
    return [given] if isinstance(given, (int, str)) and not isinstance(given, bool) else given


Numbers = Annotated[list[int], BeforeValidator(_listed), Field(min_length=1, max_length=10)]


class LikedDislikedAnswer(BaseModel):
    liked: Numbers
    disliked: Numbers


class LikedDislikedRow(BaseModel):
    """What is published: the k-th liked and the k-th disliked item id are one pair."""

    liked: list[str]
    disliked: list[str]


@dataclass(frozen=True)
class LikedDisliked(PromptTask):
    """``picks`` liked and as many disliked of the candidates, one answer per user.

    At most ``max_items`` newest entries of the history are told, and of these as many newest as fit
    into ``history_tokens`` (estimated).
    """

    produces: ClassVar[str] = "augmented_interactions"
    entity: ClassVar[str] = "user"
    usual: ClassVar[str] = "sequential"
    answer: ClassVar[type[BaseModel]] = LikedDislikedAnswer
    published: ClassVar[type[BaseModel]] = LikedDislikedRow
    system: ClassVar[str] = _SYSTEM
    picks: int = 1
    max_items: int = 30
    history_tokens: int = 1500
    max_tokens: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.picks <= 10 or self.max_items < 1 or self.history_tokens < 50:
            raise ValueError(
                f"LikedDisliked(picks={self.picks}, max_items={self.max_items}, history_tokens="
                f"{self.history_tokens}): 1 to 10 picks, at least 1 item and 50 tokens are needed"
            )

    def unaskable(self, row: Row, context: Context = None) -> str:
        if not any(map(title_of, entries(row))):
            return "the user's history is empty"
        offered = entries(row, "candidates")
        if len(offered) < 2 * self.picks:
            return f"{len(offered)} candidates are too few for {self.picks} liked and disliked"
        return "" if all(map(title_of, offered)) else "a candidate has no title"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        n = self.picks
        shown = self.shown(row)
        rated = any(opinion(entry, context) for entry in shown)
        system = self.system.format(
            plural=domain.plural, did=domain.did, rated=", with the user's own rating" * rated,
            the_liked="the one the user would like most" if n == 1
            else f"the {n} the user would like most, best first",
            the_disliked="the one the user would like least" if n == 1
            else f"the {n} the user would like least, worst first",
            form=", ".join(["number"] * n), data_rule=_DATA_RULE,
        )  # fmt: skip
        # A candidate was not met yet: whatever a row may say of an opinion is not told.
        offered = [
            f"{number}. {entry_line({**entry, 'rating': None, 'label': None}, context)}"
            for number, entry in enumerate(entries(row, "candidates"), start=1)
        ]
        told = [entry_line(entry, context) for entry in shown]
        content = f"{fenced('history', told)}\n{fenced('candidates', offered)}"
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def shown(self, row: Row) -> list[Mapping[str, Any]]:
        """Return the newest entries that fit, oldest first; at least one."""
        return newest(row, self.max_items, self.history_tokens)

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        told, total = len(self.shown(row)), sum(1 for e in entries(row) if title_of(e))
        return [f"history: the newest {told} of {total} entries"] if told < total else []

    def row_schema(self, row: Row) -> dict[str, Any]:
        """Return the answer's schema with the numbers of this row's candidates alone."""
        schema = answer_schema(self.answer)
        numbers = range(1, len(entries(row, "candidates")) + 1)
        for field in ("liked", "disliked"):
            schema = narrow(schema, field, max_items=self.picks)
            schema = narrow(schema, f"{field}[]", enum=list(numbers))
        return schema

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        """Refuse numbers outside of the list, numbers used twice, and sides of unequal length."""
        offered = len(entries(row, "candidates"))
        liked, disliked = value["liked"], value["disliked"]
        reasons = []
        outside = sorted({n for n in [*liked, *disliked] if not 1 <= n <= offered})
        if outside:
            reasons.append(f"number {outside[0]} is not in the list of 1 to {offered}")
        for name, side in (("liked", liked), ("disliked", disliked)):
            twice = [n for n, count in Counter(side).items() if count > 1]
            if twice:
                reasons.append(f"{name}: number {twice[0]} is given twice")
        both = sorted(set(liked) & set(disliked))
        if both:
            reasons.append(f"number {both[0]} is both liked and disliked")
        if len(liked) != self.picks or len(disliked) != self.picks:
            reasons.append(
                f"{self.picks} liked and {self.picks} disliked are asked for, the answer has "
                f"{len(liked)} and {len(disliked)}"
            )
        return reasons

    def resolved(self, value: Mapping[str, Any], row: Row) -> dict[str, Any]:
        ids = [str(entry["item_id"]) for entry in entries(row, "candidates")]
        return {name: [ids[n - 1] for n in value[name]] for name in ("liked", "disliked")}

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """Most and least overlap with the history's kinds, makers, brands and title words.

        Ties keep the order of the candidates: the earlier is the more, the later the less liked.
        """
        seen = Counter(word for entry in entries(row) for word in _features(entry))
        overlap = [
            sum(seen[word] for word in features) / max(1, len(features))
            for features in map(_features, entries(row, "candidates"))
        ]
        order = sorted(range(len(overlap)), key=lambda n: (-overlap[n], n))
        return {
            "liked": [n + 1 for n in order[: self.picks]],
            "disliked": [n + 1 for n in order[: -self.picks - 1 : -1]],
        }

    def text(self, value: Mapping[str, Any]) -> str:
        sides = (f"{name}: {', '.join(map(str, value[name]))}" for name in ("liked", "disliked"))
        return "; ".join(sides)


def _features(entry: Mapping[str, Any]) -> set[str]:
    named = [
        f"{role.label}={v}" for role in (CATEGORY, CREATOR, BRAND) for v in of_role(entry, role)
    ]
    return {*named, *content_words(as_data(title_of(entry)))}
