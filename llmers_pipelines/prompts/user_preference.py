"""What a user prefers, factor by factor, from the own history (KAR, RecSys 2024, user side).

Rows are ``{"user_id", "history": [{"item_id", "title", ...}, ...]}``, oldest entry first, made from
training or history rows alone: the leak-safe cut belongs to the data split, not to this task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .checks import echo, invented_titles, refusal, repetition, thin
from .domains import domain_of
from .fields import CATEGORY, DATA_RULE, as_data, bare_title, fenced, of_role, title_of
from .habits import habit_sentences
from .task import Context, Message, PromptTask, Row

CHARACTERS_PER_TOKEN = 4  # an estimate: a prompt is rendered before the model's tokenizer is known

_SYSTEM = """\
You analyse what one user of a recommender system prefers. You are given the {plural} that the \
user has {did}, in order of time, oldest first{rated}.
Go through these factors in this order: {factors}. For each that the history speaks about, say \
what the user likes or avoids, and name the {plural} that show it.
Rules:
- Judge from the given history alone; leave a factor out rather than guess.
- Quote only titles from the history. Do not recommend other {plural}.
- Later {plural} weigh more than earlier ones.
- Plain sentences, at most {words} words, no headings and no lists.
- {data_rule}
- Answer with the text alone."""


@dataclass(frozen=True)
class UserPreference(PromptTask):
    """One text per user.

    At most ``max_items`` newest entries are told, and of these as many newest as fit into
    ``history_tokens`` (estimated); the prompt says how many of how many it shows.
    ``demographics`` names user columns to tell. The default is none: ages and zip codes invite a
    model to remember public data sets instead of reading the history.
    """

    produces: ClassVar[str] = "user_profiles"
    entity: ClassVar[str] = "user"
    system: ClassVar[str] = _SYSTEM
    factors: tuple[str, ...] = ()
    demographics: tuple[str, ...] = ()
    max_items: int = 30
    history_tokens: int = 1500
    words: int = 200

    def __post_init__(self) -> None:
        if self.max_items < 1 or self.history_tokens < 50:
            raise ValueError(
                f"UserPreference(max_items={self.max_items}, history_tokens="
                f"{self.history_tokens}): at least 1 item and 50 tokens are needed"
            )

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if any(map(title_of, _history(row))) else "the user's history is empty"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        shown = self.shown(row)
        rated = any(_opinion(entry, context) for entry in shown)
        system = self.system.format(
            plural=domain.plural, did=domain.did, words=self.words,
            factors=", ".join(self.factors or domain.factors),
            rated=", with the user's own rating" if rated else "",
            data_rule=DATA_RULE.format(tag="history"),
        )  # fmt: skip
        total = sum(1 for entry in _history(row) if title_of(entry))
        head = f"{len(shown)} {domain.plural}"
        if len(shown) < total:
            head = f"the newest {len(shown)} of {total} {domain.plural}"
        told = [(name, as_data(row.get(name))) for name in self.demographics]
        person = [f"{name}: {text}" for name, text in told if text]
        lines = [f"{n}. {_line(e, context)}" for n, e in enumerate(shown, start=1)]
        content = "\n".join([*person, f"History ({head}):", fenced("history", lines)])
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def shown(self, row: Row) -> list[Mapping[str, Any]]:
        """Return the entries that the prompt tells, oldest first."""
        newest: list[Mapping[str, Any]] = []
        room = self.history_tokens * CHARACTERS_PER_TOKEN
        for entry in reversed([e for e in _history(row) if title_of(e)]):
            room -= len(_line(entry, None)) + 6
            if len(newest) == self.max_items or (newest and room < 0):
                break
            newest.append(entry)
        return newest[::-1]

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        told, total = len(self.shown(row)), sum(1 for e in _history(row) if title_of(e))
        return [f"history: the newest {told} of {total} entries"] if told < total else []

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        text = value["text"]
        titles = [title_of(entry) for entry in _history(row)]
        reasons = [refusal(text), repetition(text), echo(text, titles), thin(text, (), least=3)]
        invented = invented_titles(text, titles)
        if len(invented) > 1:
            quoted = ", ".join(repr(title) for title in invented[:3])
            reasons.append(f"titles are quoted that the history does not hold: {quoted}")
        return [reason for reason in reasons if reason]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        return {"text": " ".join(habit_sentences(self.shown(row), domain_of(context)))}

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["text"])


def _history(row: Row) -> Sequence[Mapping[str, Any]]:
    history = row.get("history")
    return [] if history is None else list(history)


def _opinion(entry: Mapping[str, Any], context: Context) -> str:
    """Return what the user thought of the entry, as far as the data says."""
    rating, label = entry.get("rating"), entry.get("label")
    if rating is not None and rating == rating:
        best = (context or {}).get("rating_max")
        return f"rated {rating:g}{f' of {best:g}' if best else ''}"
    if label is not None and label == label:
        return "liked" if label > 0 else "disliked"
    return ""


def _line(entry: Mapping[str, Any], context: Context) -> str:
    title = as_data(bare_title(title_of(entry)), limit=120).replace('"', "'")
    kinds = ", ".join(of_role(entry, CATEGORY)[:4])
    return "; ".join(filter(None, [f'"{title}"', _opinion(entry, context), kinds]))


