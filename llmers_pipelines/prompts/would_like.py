"""Whether a user would choose an item: yes or no, and which of a list (LLM-InS, arXiv:2402.09176).

The model reads the newest titles of the history and a title. It is not asked to write: the
log-probabilities of the two answers are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..plan import Component, PlanError
from .domains import domain_of
from .fields import DATA_RULE, fenced
from .noise import said_title
from .task import Context, Message

YES, NO = "Yes", "No"
ANSWERS = (YES, NO)

_ONE = """\
You judge what users of a recommender system choose. You are given the {plural} that one user has \
{did}, in order of time, oldest first, and one more {noun}. Answer {yes} if the user would choose \
it, else {no}, and nothing else.
{data_rule}"""

_LIST = """\
You judge what users of a recommender system choose. You are given the {plural} that one user has \
{did}, in order of time, oldest first, and candidates. Answer with the title of the candidate that \
the user would choose, and nothing else.
{data_rule}"""


@dataclass(frozen=True)
class WouldLike(Component):
    """Asks about one title after the ``shown`` newest titles of a history."""

    shown: int = 20

    def __post_init__(self) -> None:
        if self.shown < 1:
            raise PlanError(f"WouldLike(shown={self.shown}): at least 1 title is needed")

    @property
    def prompt_revision(self) -> str:
        return f"would_like r{type(self).revision} shown={self.shown}"

    def name(self, row: Mapping[str, Any]) -> str:
        """Return an item's title as it is told, "" where it has none."""
        return said_title(row)

    def render(self, history: Sequence[str], title: str, context: Context = None) -> list[Message]:
        """Return the question about ``title``; ``history`` are titles, oldest first."""
        return self._told(_ONE, history, [f"The {domain_of(context).noun}: '{title}'"], context)

    def which(
        self, history: Sequence[str], titles: Sequence[str], context: Context = None
    ) -> list[Message]:
        """Return the question which of ``titles`` the user would choose."""
        lines = [f"{n}. '{title}'" for n, title in enumerate(titles, start=1)]
        return self._told(_LIST, history, [fenced("candidates", lines)], context)

    def _told(
        self, system: str, history: Sequence[str], asked: list[str], context: Context
    ) -> list[Message]:
        domain = domain_of(context)
        rule = DATA_RULE.format(tag="history")
        told = system.format(plural=domain.plural, did=domain.did, noun=domain.noun, yes=YES,
                             no=NO, data_rule=rule)  # fmt: skip
        lines = [f"{n}. '{t}'" for n, t in enumerate(list(history)[-self.shown :], start=1)]
        return [
            {"role": "system", "content": told},
            {"role": "user", "content": "\n".join([fenced("history", lines), *asked])},
        ]
