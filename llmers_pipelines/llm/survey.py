"""What a run of a prompt task would find: what is stored, what is new, and what was refused.

It renders and judges as the runner does, and asks no engine for more than its identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..prompts.task import Context, PromptTask, Row
from ..store.responses import ResponseStore, response_key
from .asking import from_store, keyed
from .keys import request_json
from .pictures import texts_of
from .protocol import Engine, EngineInfo, GenRequest, Sampling
from .runner import Rows, by_id, judge_result, render, repair_request, told_context

_BY_ROW = EngineInfo(kind="recorded", model="")
JUDGED = 20_000  # stored answers that are judged for repairs; of more, evenly spread ones


@dataclass(frozen=True)
class Missing:
    """One call to be made: the first row that asks it, its key, and its prompt's characters."""

    row_id: str
    key: str
    characters: int


@dataclass(frozen=True)
class Paid:
    """What one answered question cost: tokens of its first call, and of its repair if any.

    ``repaired`` with ``repair_in`` 0: it was refused and its repair has not been asked yet.
    """

    tokens_in: int
    tokens_out: int
    repair_in: int = 0
    repair_out: int = 0
    repaired: bool = False
    characters: int = 0  # of the first prompt
    key: str = ""


@dataclass(frozen=True)
class Other:
    """A model that has answers in the store: its name, its identity, and whether it read prompts.

    Recorded answers are stored by row, so their keys are made another way.
    """

    label: str
    identity: str
    reads_prompts: bool = True


@dataclass(frozen=True)
class Survey:
    """``rows`` and ``askable`` count rows, ``cached`` rows whose answer is stored.

    ``missing`` has one entry per different new request; ``paid`` what the cached ones cost.
    ``pending`` are expected repairs of cached answers whose repair is not stored (a run that was
    stopped between the two). ``elsewhere``: model -> rows that it answered to the same request.
    """

    rows: int
    askable: int
    cached: int = 0
    stored: int = 0  # different requests with an answer
    missing: tuple[Missing, ...] = ()
    paid: tuple[Paid, ...] = ()
    pending: float = 0.0
    elsewhere: Mapping[str, int] = field(default_factory=dict)

    @property
    def new(self) -> int:
        """Askable rows without a stored answer."""
        return self.askable - self.cached


def survey(
    task: PromptTask,
    rows: Rows,
    engine: Engine,
    store: ResponseStore | None,
    *,
    sampling: Sampling = Sampling(),
    context: Context = None,
    others: Sequence[Other] = (),
) -> Survey:
    """Return what a run over ``rows`` would find.

    Answers of ``others`` to the same questions are counted in ``elsewhere`` where this run would
    have to pay. Raises ``ValueError`` as the runner does.
    """
    context = told_context(context, engine.info)
    given = by_id(rows, task)
    askable = [i for i, row in given.items() if not task.unaskable(row, context)]
    if "prompts" not in engine.info.capabilities or store is None:
        return Survey(len(given), len(askable))
    first: dict[str, Missing] = {}
    row_key: dict[str, str] = {}
    foreign: dict[str, dict[str, str]] = {other.identity: {} for other in others}
    for row_id in askable:
        request = render(task, row_id, given[row_id], sampling, context)
        ask = keyed(given[row_id], request, engine.info)
        content, key = ask.content, ask.key
        row_key[row_id] = key
        first.setdefault(key, Missing(row_id, key, characters(request)))
        for other in others:
            asked = content if other.reads_prompts else request_json(request, _BY_ROW)
            foreign[other.identity][row_id] = response_key(other.identity, asked)
    known = store.known(first)
    paid, pending = _judged(
        [m for m in first.values() if m.key in known], given, task, engine, store, sampling, context
    )
    elsewhere: dict[str, int] = {}
    for other in others:
        keys = foreign[other.identity]
        asked_anew = [key for row, key in keys.items() if row_key[row] not in known]
        theirs = store.known(asked_anew)
        if count := sum(key in theirs for key in asked_anew):
            elsewhere[other.label] = elsewhere.get(other.label, 0) + count
    return Survey(
        len(given), len(askable), sum(k in known for k in row_key.values()), len(known),
        tuple(m for m in first.values() if m.key not in known), paid, pending, elsewhere,
    )  # fmt: skip


def characters(request: GenRequest) -> int:
    """Return the characters of a prompt's texts."""
    return sum(len(texts_of(message)) for message in request.messages)


def _judged(
    cached: Sequence[Missing], given: Mapping[str, Row], task: PromptTask, engine: Engine,
    store: ResponseStore, sampling: Sampling, context: Context,
) -> tuple[tuple[Paid, ...], float]:  # fmt: skip
    """Return what stored answers cost with their repairs, and the repairs that are still due."""
    chosen = list(_spread(cached, JUDGED))
    answers = store.lookup(m.key for m in chosen)
    costs: list[Paid] = []
    repairs: dict[str, int] = {}
    for one in chosen:
        answer = answers[one.key]
        cost = Paid(answer.tokens_in, answer.tokens_out, characters=one.characters, key=one.key)
        request = render(task, one.row_id, given[one.row_id], sampling, context)
        result = from_store(answer)
        asked = keyed(given[one.row_id], request, engine.info)
        again = repair_request(task, asked, result, judge_result(task, asked, result))
        if again is not None:
            repairs[keyed(given[one.row_id], again, engine.info).key] = len(costs)
            cost = replace(cost, repaired=True)
        costs.append(cost)
    second = store.lookup(repairs)
    for key, place in repairs.items():
        if key in second:
            costs[place] = replace(
                costs[place], repair_in=second[key].tokens_in, repair_out=second[key].tokens_out
            )
    due = sum(key not in second for key in repairs)
    return tuple(costs), due * len(cached) / max(1, len(chosen))


def _spread(items: Sequence[Missing], most: int) -> Iterable[Missing]:
    if len(items) <= most:
        return items
    return (items[i * len(items) // most] for i in range(most))
