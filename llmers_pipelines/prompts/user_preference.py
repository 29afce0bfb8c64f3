"""What a user prefers, factor by factor, from the own history (KAR, RecSys 2024, user side).

Rows are ``{"user_id", "history": [{"item_id", "title", ...}, ...]}``, oldest entry first, made from
training or history rows alone: the leak-safe cut belongs to the data split, not to this task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .checks import echo, invented_titles, refusal, repetition, thin
from .domains import domain_of
from .fields import DATA_RULE, as_data, fenced, title_of
from .habits import habit_sentences
from .history import entries, entry_line, newest, opinion
from .task import Context, Message, PromptTask, Row

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
        return "" if any(map(title_of, entries(row))) else "the user's history is empty"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        shown = self.shown(row)
        rated = any(opinion(entry, context) for entry in shown)
        system = self.system.format(
            plural=domain.plural, did=domain.did, words=self.words,
            factors=", ".join(self.factors or domain.factors),
            rated=", with the user's own rating" if rated else "",
            data_rule=DATA_RULE.format(tag="history"),
        )  # fmt: skip
        total = sum(1 for entry in entries(row) if title_of(entry))
        head = f"{len(shown)} {domain.plural}"
        if len(shown) < total:
            head = f"the newest {len(shown)} of {total} {domain.plural}"
        told = [(name, as_data(row.get(name))) for name in self.demographics]
        person = [f"{name}: {text}" for name, text in told if text]
        lines = [f"{n}. {entry_line(e, context)}" for n, e in enumerate(shown, start=1)]
        content = "\n".join([*person, f"History ({head}):", fenced("history", lines)])
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def shown(self, row: Row) -> list[Mapping[str, Any]]:
        """Return the entries that the prompt tells, oldest first."""
        return newest(row, self.max_items, self.history_tokens)

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        told, total = len(self.shown(row)), sum(1 for e in entries(row) if title_of(e))
        return [f"history: the newest {told} of {total} entries"] if told < total else []

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        text = value["text"]
        titles = [title_of(entry) for entry in entries(row)]
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
