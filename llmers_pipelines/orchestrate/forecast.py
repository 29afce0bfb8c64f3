"""What one generated asset would cost now: calls, tokens, money, time, each with its source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..config import Settings
from ..llm.figures import NOTHING, UNKNOWN, Figure, added, strata, stratified_total
from ..llm.history import Answered, Spending, answered, costs, task_name
from ..llm.prompt_tokens import prompt_counter
from ..llm.runner import render
from ..llm.survey import Missing, Survey, survey
from ..plan import Generate
from ..prices import Price
from .context import StepContext
from .measured import measured, speed
from .steps.generate import Question, prepare
from .tuned import adapted

SAMPLE = 2_000  # prompts whose tokens are counted; all of them where there are no more
REASON = 330  # most tokens of the message that asks again: 300 characters of why, and its frame
ELSEWHERE = "another data set"  # the source of figures whose error nothing here tells
KNOWN_SHARE = 0.9  # of the rows that were answered: the others may have left the catalog
FEW = 20  # answers to an asset's own rows below which those to any rows are asked as well


@dataclass(frozen=True)
class Bill:
    """Expected figures of a number of first calls and of the repairs that they bring."""

    calls: Figure
    repairs: Figure
    tokens_in: Figure
    tokens_out: Figure
    money: Figure
    seconds: Figure
    gpu_hours: Figure
    currency: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class Forecast:
    """One generated asset, surveyed. ``pilot``: keys of the questions that a pilot asked."""

    node: Generate
    ctx: StepContext
    pilot: frozenset[str] = frozenset()
    claimed: frozenset[str] = frozenset()  # keys that an earlier asset of the plan pays for

    @cached_property
    def settings(self) -> Settings:
        """Settings with the engine that answers: that of a tuned model where the node names one."""
        return adapted(self.node, self.ctx).settings

    @cached_property
    def question(self) -> Question:
        """What a run would ask; raises ``StepError`` where inputs lack."""
        return prepare(self.node, self.ctx)

    @property
    def info(self) -> Any:
        return self.question.engine.info

    @property
    def pays(self) -> bool:
        """False for engines that answer by row: they make no calls."""
        return "prompts" in self.info.capabilities

    @cached_property
    def groups(self) -> list[Answered]:
        """Who answered this prompt task before, in any revision."""
        return answered(self.question.store, task_name(self.node.task.prompt_revision))

    @cached_property
    def survey(self) -> Survey:
        q, revision = self.question, self.node.task.prompt_revision
        others = {
            g.identity: g.other for g in self.groups
            if g.identity != self.info.identity and g.prompt_revision == revision
        }  # fmt: skip
        return survey(self.node.task, q.rows, q.engine, q.store, sampling=q.sampling,
                      context=q.context, others=list(others.values()))  # fmt: skip

    @cached_property
    def missing(self) -> tuple[Missing, ...]:
        """The calls that this asset has to pay for itself."""
        return tuple(m for m in self.survey.missing if m.key not in self.claimed)

    @cached_property
    def _counter(self) -> tuple[Any, str, int]:
        return prompt_counter(self.settings, self.info, self.question.store)

    @cached_property
    def _room(self) -> int:
        """Most tokens of one answer."""
        return self.node.task.room(self.question.sampling.max_tokens)

    @cached_property
    def _rows(self) -> dict[str, Any]:
        return {str(row.get(self.node.task.id_column)): row for row in self.question.rows}

    @cached_property
    def spending(self) -> tuple[Spending, str, str]:
        """Return what answers cost so far, the source's name, and in words whose they are."""
        mine, revision = self.info.identity, self.node.task.prompt_revision
        store, own = self.question.store, self.survey.paid
        pilot = tuple(p for p in own if p.key in self.pilot)
        if len(pilot) >= min(FEW, max(1, len(self.pilot))):
            return Spending(pilot), "pilot", f"{len(pilot):,} piloted rows of this asset"
        if len(own) >= FEW:
            return Spending(own), "earlier answers", f"{len(own):,} to rows of this asset"
        near = sorted(
            (g for g in self.groups if g.engine != "recorded"),
            key=lambda g: (not self._ours(g), g.identity != mine, g.prompt_revision != revision,
                           -len(g.rows)),
        )  # fmt: skip
        for group in near:
            paid = costs(store, identity=group.identity, prompt_revision=group.prompt_revision)
            if paid and any(p.tokens_out for p in paid):
                by = "" if group.identity == mine else f" by another model, {group.model}"
                of = "" if group.prompt_revision == revision else f" to {group.prompt_revision}"
                whose = f"{len(paid):,}{of}{by}"
                if self._ours(group):
                    return Spending(tuple(paid)), "earlier answers", whose
                return Spending(tuple(paid)), ELSEWHERE, (
                    f"{whose}, to rows of another data set: how far off is not known; "
                    "run with --pilot"
                )
        return Spending(()), "bound", f"no answer is stored; at most {self._room} tokens each"

    def _ours(self, group: Answered) -> bool:
        """Say whether stored answers are to rows of this data set.

        Their ids are, and no run asked the same of another data set. Ids alone do not tell: two
        catalogs may both count from 1.
        """
        asked = {
            m.dataset for m in measured(self.ctx.settings)
            if (m.identity, m.prompt_revision) == (group.identity, group.prompt_revision)
            and m.llm_calls
        }  # fmt: skip
        known = len(group.rows & self._rows.keys()) >= KNOWN_SHARE * len(group.rows)
        return known and asked <= {self.ctx.dataset}

    def bill(self, missing: Sequence[Missing] | None = None, pending: float | None = None) -> Bill:
        """Return the figures of ``missing`` calls (default: all) and ``pending`` repairs."""
        if not self.pays:
            return Bill(*[NOTHING] * 7)
        missing = self.missing if missing is None else missing
        pending = self.survey.pending if pending is None else pending
        if not missing and not pending:
            return Bill(*[NOTHING] * 7)
        first, prompts, notes = self._first(missing)
        n = round(first.value or 0)
        spent, source, whose = self.spending
        if source == "bound":
            # At worst each answer is cut at its bound and asked again with twice the room, or is
            # refused and repeated in a second prompt.
            most, whole = float(n * self._room), prompts.high or 0.0
            repairs = Figure(None, "unknown", 0.0, float(n), detail=f"at most {n}")
            calls = Figure(first.value, first.source, first.low, 2 * (first.high or 0.0))
            again = whole + most + n * REASON
            read = Figure(prompts.value, "", prompts.low, whole + again)
            written = Figure(most, "bound", 0.0, 3 * most, detail=whose)
            notes.append("the bound is that of first answers; refused ones are asked once more, "
                         f"which at worst adds {n:,} calls and {2 * most:,.0f} answer tokens")
        else:
            due = Figure(pending, "rendered", pending, pending) if pending else NOTHING
            due_in, due_out = (pending * t for t in spent.one_repair)
            repairs = added([due, _of(spent.repairs(n), source, whose)])
            calls = added([first, repairs])
            again = _of(spent.read_again(n), source)
            read = added([prompts, again, Figure(due_in, source, due_in, due_in)])
            out = _of(spent.written(n), source)
            if source == ELSEWHERE:
                notes.append(f"repairs, tokens out and money come from {whose}")
            written = added([out, Figure(due_out, source, due_out, due_out)])
            written = Figure(written.value, source, written.low, written.high, detail=whose)
        read = Figure(read.value, prompts.source, read.low, read.high, prompts.se, prompts.detail)
        revision, settings = self.node.task.prompt_revision, self.settings
        seconds, gpu_hours, price = time_of(settings, self.info, revision, read, written)
        money = money_of(price, read, written, gpu_hours, self.info.model)
        currency = price.currency if price else ""
        return Bill(calls, repairs, read, written, money, seconds, gpu_hours, currency,
                    tuple(notes))  # fmt: skip

    def _first(self, missing: Sequence[Missing]) -> tuple[Figure, Figure, list[str]]:
        """Return first calls and their prompt tokens, counted on all rows or on a sample."""
        if not missing:
            return NOTHING, NOTHING, []
        count, how, context = self._counter
        fits: list[tuple[int, list[float]]] = []
        tokens: list[tuple[int, list[float]]] = []
        looked = 0
        for stratum in strata([m.characters for m in missing], SAMPLE, self.ctx.settings.llm_seed):
            sizes = [count(self._messages(missing[i])) for i in stratum.chosen]
            ok = [not context or size + self._room <= context for size in sizes]
            fits.append((stratum.size, [float(o) for o in ok]))
            tokens.append((stratum.size, [s * o for s, o in zip(sizes, ok, strict=True)]))
            looked += len(sizes)
        (calls, calls_se), (total, se) = stratified_total(fits), stratified_total(tokens)
        source = "rendered" if looked == len(missing) else "sampled"
        detail = (
            how if source == "rendered" else f"{how}, on {looked:,} of {len(missing):,} prompts"
        )
        notes = []
        if calls < len(missing):
            notes.append(
                f"{len(missing) - calls:.0f} prompts are longer than the model's context "
                f"of {context:,} tokens allows: they are refused and cost nothing"
            )
        return (
            Figure(calls, source, *around(calls, calls_se), calls_se),
            Figure(total, source, *around(total, se), se, detail),
            notes,
        )

    def _messages(self, one: Missing) -> Any:
        q = self.question
        row = self._rows[one.row_id]
        return render(self.node.task, one.row_id, row, q.sampling, q.context).messages

    def forks(self) -> list[str]:
        """Return who answered the same questions already, where this run pays again."""
        if not self.pays or not self.survey.missing:
            return []
        mine, revision = self.info.identity, self.node.task.prompt_revision
        asked = {m.row_id for m in self.survey.missing}
        told = []
        for model, n in self.survey.elsewhere.items():
            same = " (its tokenizer or adapter was another)" if model == self.info.label else ""
            told.append(f"fork: {n:,} rows were already answered by {model}{same}; running with "
                        f"{self.info.label} pays again")  # fmt: skip
        for group in self.groups:
            again = len(group.rows & asked)
            if group.identity != mine or not again:
                continue
            if group.prompt_revision != revision:
                told.append(
                    f"{again:,} answers of revision {group.prompt_revision} to rows of "
                    f"these ids are not re-used: the prompt is {revision} now"
                )
            else:
                told.append(
                    f"{again:,} answers of this model and prompt to rows of these ids are "
                    "not re-used: the rows' texts or the sampling settings differ"
                )
        return told


def time_of(
    settings: Settings, info: Any, revision: str, read: Figure, written: Figure
) -> tuple[Figure, Figure, Price | None]:
    """Return seconds and GPU-hours, by what was measured here or by the price table."""
    price = price_of(settings, info.model)
    found = speed(measured(settings), engine=info.kind, identity=info.identity,
                  prompt_revision=revision, writes=bool(written.value))  # fmt: skip
    tokens = added([read, written])
    bound = "bound" if written.source == "bound" else ""
    if found is not None:
        load = Figure(found.loading, "none", found.loading, found.loading)
        part = added([tokens.times(1 / found.tokens_per_second), load if tokens.value else NOTHING])
        seconds = _from(part, bound or "earlier runs", found.detail)
        on_gpu = found.device.startswith("cuda")
        hours = _from(part.times(1 / 3600), bound or "earlier runs", found.detail)
        where = f"no GPU: {found.device or 'the model runs elsewhere'}"
        return seconds, hours if on_gpu else _from(NOTHING, "none", where), price
    if price is not None and price.tokens_per_second:
        part = tokens.times(1 / price.tokens_per_second)
        detail = f"{price.tokens_per_second:,g} tokens/s of one GPU"
        seconds = _from(part, bound or "price table", detail)
        return seconds, _from(part.times(1 / 3600), bound or "price table", detail), price
    if not info.weights_sha256:
        return UNKNOWN, _from(NOTHING, "none", "the model runs elsewhere"), price
    return UNKNOWN, UNKNOWN, price


def price_of(settings: Settings, model: str) -> Price | None:
    """Return the price of a model by its name, as the engine or as ``llm.model`` writes it."""
    return settings.prices.get(model) or settings.prices.get(settings.model)


def price_table(name: str) -> str:
    """Return the section that gives a model a price."""
    return f'[prices."{name}"]\ninput = 0.0    # per million tokens\noutput = 0.0'


def money_of(
    price: Price | None, read: Figure, written: Figure, hours: Figure, name: str
) -> Figure:
    """Return the money of tokens and GPU-hours; without a price, the section to be filled."""
    if price is None:
        return Figure(None, "no price", detail=price_table(name))
    ends = []
    for at in ("value", "low", "high"):
        parts = [getattr(f, at) for f in (read, written)]
        gpu = getattr(hours, at) or 0.0
        known = None not in parts
        ends.append(price.tokens(*parts) + gpu * price.gpu_hour if known else None)
    open_hours = price.gpu_hour and hours.value is None
    detail = "without GPU-hours, which are unknown" if open_hours else ""
    source = "bound" if written.source == "bound" else "price table"
    return Figure(ends[0], source, ends[1], ends[2], detail=detail)


def _of(three: Iterable[float], source: str, detail: str = "") -> Figure:
    """Return a prediction as a figure; one from another data set has no interval.

    The spread within that data set says nothing of the difference between the two.
    """
    value, low, high = three
    ends = (None, None) if source == ELSEWHERE else (low, high)
    return Figure(value, source, *ends, detail=detail)


def around(value: float, se: float) -> tuple[float, float]:
    """Return a 90 % interval around a sampled total."""
    return max(0.0, value - 1.645 * se), value + 1.645 * se


def _from(figure: Figure, source: str, detail: str) -> Figure:
    return Figure(figure.value, source, figure.low, figure.high, figure.se, detail)
