"""Which titles of a history do not belong, and what would (LLM4DSR, arXiv:2408.08208).

A tuned model answers ``Noise Items: '...'`` and ``Suggested Replacements: '...'``. The answer is
begun for it: up to the first quote, where the log-probability of each title of the history is read,
and up to the second one, where it goes on with a title of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel

from ..plan import Component, PlanError
from .domains import domain_of
from .fields import DATA_RULE, as_data, bare_title, fenced, title_of
from .history import entries
from .task import Context, Message, Parsed, PromptTask, Row

NOISE, REPLACE, END = "Noise Items: '", "'\nSuggested Replacements: '", "'"

_SYSTEM = """\
You clean histories of a recommender system. You are given {plural} that one user has {did}, in \
order of time, oldest first. Find the {noun} that is off the user's main interest, and suggest \
another {noun} that would fit in its place.
{data_rule}
- Answer in two lines: {noise}title{end} and {replace}title{end}"""


def said_title(row: Mapping[str, Any]) -> str:
    """Return an item's title as histories and answers quote it; "" where it has none."""
    return as_data(bare_title(title_of(row)), limit=120).replace("'", "’")


def told(titles: Sequence[str], context: Context) -> list[Message]:
    """Return the question about ``titles``, oldest first."""
    domain = domain_of(context)
    system = _SYSTEM.format(
        plural=domain.plural, did=domain.did, noun=domain.noun,
        data_rule=DATA_RULE.format(tag="history"), noise=NOISE, end=END,
        replace=REPLACE.removeprefix("'\n"),
    )  # fmt: skip
    lines = [f"{n}. '{title}'" for n, title in enumerate(titles, start=1)]
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": fenced("history", lines)},
    ]


def begun(titles: Sequence[str], context: Context, noise: str = "") -> list[Message]:
    """Return the question with its answer begun: before the noise, or behind ``noise``."""
    start = f"{NOISE}{noise}{REPLACE}" if noise else NOISE
    return [*told(titles, context), {"role": "assistant", "content": start}]


@dataclass(frozen=True)
class NoiseList(Component):
    """Asks which of ``shown`` titles is noise; the titles themselves are the choices."""

    shown: int = 10

    def __post_init__(self) -> None:
        if self.shown < 2:
            raise PlanError(f"NoiseList(shown={self.shown}): at least 2 titles are needed")

    @property
    def prompt_revision(self) -> str:
        return f"noise_list r{type(self).revision} shown={self.shown}"


class Suggestion(BaseModel):
    """The title that a model suggests."""

    title: str


class SuggestedRow(BaseModel):
    """A suggestion with the place that it is for."""

    title: str
    user_id: str
    position: int


@dataclass(frozen=True)
class Replacement(PromptTask):
    """One title per position that was found to be noise; of a model tuned to suggest.

    Rows have ``row_id``, ``user_id``, ``position``, ``noise`` (the item at fault) and ``history``,
    the items of its window, oldest first. The answer ends at its closing quote.
    """

    produces: ClassVar[str] = "sequence_edits"
    entity: ClassVar[str] = "row"
    usual: ClassVar[str] = "sequential"
    answer: ClassVar[type[BaseModel]] = Suggestion
    published: ClassVar[type[BaseModel] | None] = SuggestedRow
    stop: ClassVar[tuple[str, ...]] = (END, "\n")
    max_tokens: int = 48
    shown: int = 10  # titles of a window, as many as were scored together

    def room(self, wanted: int) -> int:
        return self.max_tokens  # a title, whatever other answers may need

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if said_title(row.get("noise") or {}) else "the item has no title"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        titles = [t for e in entries(row) if (t := said_title(e))]
        return begun(titles, context, said_title(row["noise"]))

    def row_schema(self, row: Row) -> dict[str, Any] | None:
        return None  # the answer goes on behind a quote, as the model was tuned

    def parse(self, raw: str) -> Parsed:
        title = as_data(raw.split(END)[0].split("\n")[0], limit=200)
        if not title:
            return Parsed(None, "invalid", "the suggestion is empty")
        return Parsed({"title": title})

    def write(self, value: Mapping[str, Any]) -> str:
        return f"{value['title']}{END}"

    def resolved(self, value: Mapping[str, Any], row: Row) -> Mapping[str, Any]:
        return {**value, "user_id": str(row["user_id"]), "position": int(row["position"])}

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """Return the title that stands before the noise, or behind it at the beginning."""
        titles = [t for e in entries(row) if (t := said_title(e))]
        at = titles.index(said_title(row["noise"]))
        return {"title": titles[at - 1 if at else min(1, len(titles) - 1)]}

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["title"])
