"""What a user looks for across scenarios (LLM4MSR, user prompt)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .domains import domain_of
from .fields import DATA_RULE, as_data, fenced
from .habits import habit_sentences
from .history import entry_line
from .task import Context, Message, Row
from .user_preference import UserPreference

_SYSTEM = """\
You analyse what one user of a recommender system looks for. You are given the {plural} that the \
user has {did} in each scenario of the system, oldest first.
Say what the user looks for everywhere, and what only in some of the scenarios.
Rules:
- Judge from the given history alone; quote only its titles and do not recommend other {plural}.
- Plain sentences, at most {words} words, no headings and no lists.
- {data_rule}
- Answer with the text alone."""


@dataclass(frozen=True)
class ScenarioPreference(UserPreference):
    """One text per user, of a history told scenario by scenario."""

    system: ClassVar[str] = _SYSTEM
    usual: ClassVar[str] = "multi_scenario"
    words: int = 120

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = self.system.format(
            plural=domain.plural, did=domain.did, words=self.words,
            data_rule=DATA_RULE.format(tag="history"),
        )  # fmt: skip
        lines = []
        for name, entries in by_scenario(self.shown(row)).items():
            lines.append(f"In {as_data(name, limit=80)}:" if name else "In no known scenario:")
            lines += [f"- {entry_line(e, context)}" for e in entries]
        content = f"History:\n{fenced('history', lines)}"
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        domain = domain_of(context)
        parts = [
            f"In {as_data(name, limit=80) or 'no known scenario'}: "
            + " ".join(habit_sentences(entries, domain))
            for name, entries in by_scenario(self.shown(row)).items()
        ]
        return {"text": " ".join(parts)}


def by_scenario(entries: list[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the entries of each scenario, in the order in which scenarios were first met."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault(str(entry.get("scenario") or ""), []).append(entry)
    return found
