"""Which item follows a history: the question whose answers are scored, not written.

The model reads the titles of the history; the candidates' titles are scored as the answer. What
comes back is a position in the list of candidates, so no item can be invented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..plan import Component, PlanError
from .domains import domain_of
from .fields import DATA_RULE, as_data, bare_title, fenced, title_of
from .task import Context, Message

_SYSTEM = """\
You recommend {plural}. You are given the {plural} that a user has {did}, in order of time, oldest \
first. Answer with the title of the {noun} that the user most likely chooses next, and nothing else.
{data_rule}"""


@dataclass(frozen=True)
class NextItem(Component):
    """Asks for the title that follows the ``shown`` newest titles of a history."""

    shown: int = 10

    def __post_init__(self) -> None:
        if self.shown < 1:
            raise PlanError(f"NextItem(shown={self.shown}): at least 1 title is needed")

    @property
    def prompt_revision(self) -> str:
        return f"next_item r{type(self).revision} shown={self.shown}"

    def render(
        self, history: Sequence[Mapping[str, Any]], context: Context = None
    ) -> list[Message]:
        """Return the messages; ``history`` are items, oldest first."""
        domain = domain_of(context)
        titles = [line for row in history if (line := self.answer(row))][-self.shown :]
        system = _SYSTEM.format(
            plural=domain.plural, did=domain.did, noun=domain.noun,
            data_rule=DATA_RULE.format(tag="history"),
        )  # fmt: skip
        lines = [f'{n}. "{title}"' for n, title in enumerate(titles, start=1)]
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": fenced("history", lines)},
        ]

    def answer(self, row: Mapping[str, Any]) -> str:
        """Return how an item would be named in the answer, or "" where it has no words."""
        return as_data(bare_title(title_of(row)), limit=120).replace('"', "'")
