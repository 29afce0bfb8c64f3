"""What a scenario shares with the others and what is its own (LLM4MSR, scenario prompt).

Rows are those of ``ScenarioFacts``, each with ``others``: the facts of the other scenarios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .checks import refusal, repetition, thin
from .domains import domain_of
from .fields import DATA_RULE, as_data, fenced
from .task import Context, Message, PromptTask, Row

_SYSTEM = """\
You analyse the scenarios in which a recommender system shows {plural}. For each scenario you are \
given counts and its most met {plural}.
Say for the scenario that is asked about what it has in common with the others and in what it \
differs: who comes there, what they look for, how much they like what they are shown.
Rules:
- Judge from the given facts alone.
- Plain sentences, at most {words} words, no headings and no lists.
- {data_rule}
- Answer with the text alone."""


@dataclass(frozen=True)
class ScenarioReasoning(PromptTask):
    """One text per scenario."""

    produces: ClassVar[str] = "group_summaries"
    entity: ClassVar[str] = "scenario"
    system: ClassVar[str] = _SYSTEM
    words: int = 120

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if row.get("interactions") else "the scenario has no training row"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        system = self.system.format(
            plural=domain_of(context).plural, words=self.words,
            data_rule=DATA_RULE.format(tag="scenarios"),
        )  # fmt: skip
        lines = [facts_line(row), *(facts_line(other) for other in row.get("others") or ())]
        asked = f"The scenario that is asked about: {as_data(row['name'], limit=80)}"
        content = "\n".join(["Scenarios, that one first:", fenced("scenarios", lines), asked])
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        text = value["text"]
        found = [refusal(text), repetition(text), thin(text, (), least=3)]
        return [reason for reason in found if reason]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        return {"text": f"{facts_line(row)}."}

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["text"])


def facts_line(row: Row) -> str:
    """Return the facts of one scenario in a line."""
    told = [f"{row['interactions']} interactions of {row['users']} users with {row['items']} items"]
    if row.get("liked") is not None:
        told.append(f"{row['liked']:.0%} liked")
    told.append(f"{row.get('shared_users') or 0:.0%} of its users use another scenario as well")
    titles = [as_data(t, limit=80).replace('"', "'") for t in row.get("titles") or ()]
    if titles:
        told.append("most met: " + ", ".join(f'"{t}"' for t in titles))
    return f"{as_data(row['name'], limit=80)}: " + "; ".join(told)
