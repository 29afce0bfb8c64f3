"""What earlier answers cost: the stored ones of a prompt task, told apart by model and revision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..store.responses import ResponseStore
from .figures import predicted_total
from .survey import Other, Paid

ENOUGH = 5_000  # stored answers that statistics are taken from, the newest first
_GROUPED = ["identity", "engine", "model", "prompt_revision", "row_id"]


def task_name(prompt_revision: str) -> str:
    """Return the task of ``item_summary-r3-0a1b2c3d``: ``item_summary``."""
    return prompt_revision.rsplit("-", 2)[0]


@dataclass(frozen=True)
class Answered:
    """The answers of one model to one revision of a prompt."""

    identity: str
    engine: str
    model: str
    prompt_revision: str
    rows: frozenset[str]  # ids of the rows that asked

    @property
    def other(self) -> Other:
        return Other(self.model, self.identity, self.engine != "recorded")


def answered(store: ResponseStore, task: str) -> list[Answered]:
    """Return who answered the prompt task ``task`` (any revision), the most answers first."""
    found: dict[tuple[str, str, str, str], set[str]] = {}
    for _, table in store.segments.read_all(_GROUPED):
        mine = table.filter(pc.starts_with(pc.fill_null(table["prompt_revision"], ""), f"{task}-"))
        for row in mine.to_pylist():
            if task_name(row["prompt_revision"]) == task:
                key = tuple(str(row[name] or "") for name in _GROUPED[:4])
                found.setdefault(key, set()).add(str(row["row_id"]))  # type: ignore[arg-type]
    groups = [Answered(*key, frozenset(rows)) for key, rows in found.items()]
    return sorted(groups, key=lambda g: (-len(g.rows), g.model, g.prompt_revision))


def costs(
    store: ResponseStore, *, identity: str = "", prompt_revision: str = "", most: int = ENOUGH
) -> list[Paid]:
    """Return what stored answers cost, each first question with its repair, the newest first.

    A request is a repair where its messages are another's plus two, or where it asks the same
    with more room than one whose answer was cut.
    """
    rows = []
    asked: dict[str, dict[str, Any]] = {}
    for row in _newest(store, identity, prompt_revision, most):
        request = json.loads(row["request"])
        if "sampling" not in request:  # scores of choices: nothing was written
            continue
        rows.append(row)
        row["messages"], row["room"] = request["messages"], request["sampling"]["max_tokens"]
        row["told"] = _hash(row["messages"])
        known = asked.get(row["told"])
        if known is None or row["room"] < known["room"]:
            asked[row["told"]] = row
    repairs: dict[str, dict[str, Any]] = {}
    first = []
    for row in rows:
        shortest = asked[row["told"]]
        before = _hash(row["messages"][:-2]) if len(row["messages"]) > 2 else ""
        if before in asked and row["messages"][-2].get("role") == "assistant":
            repairs[before] = row
        elif row["room"] == 2 * shortest["room"] and shortest["finish_reason"] == "length":
            repairs[row["told"]] = row
        else:
            first.append(row)
    return [_paid(row, repairs.get(row["told"])) for row in first]


def _paid(row: dict[str, Any], again: dict[str, Any] | None) -> Paid:
    size = sum(len(str(m["content"])) for m in row["messages"])
    paid = Paid(row["tokens_in"], row["tokens_out"], characters=size, key=row["key"])
    if again is None:
        return paid
    return Paid(paid.tokens_in, paid.tokens_out, again["tokens_in"], again["tokens_out"], True,
                size, paid.key)  # fmt: skip


def _newest(
    store: ResponseStore, identity: str, prompt_revision: str, most: int
) -> Iterator[dict[str, Any]]:
    """Yield answers with their requests from the newest segment on, until there are enough."""
    wanted = {"identity": identity, "prompt_revision": prompt_revision}
    columns = ["key", "tokens_in", "tokens_out", "finish_reason", "request"]
    left = most
    for segment in reversed(store.segments.segments()):
        try:
            about = store.segments.read(segment, list(wanted))
            mask = _matching(about, wanted)
            if not pc.any(mask).as_py():
                continue
            rows = store.segments.read(segment, columns).filter(mask)
        except FileNotFoundError:  # a merge replaced it: what is left is enough for a mean
            continue
        yield from rows.slice(0, left).to_pylist()
        left -= len(rows)
        if left <= 0:
            return


def _matching(table: pa.Table, wanted: dict[str, str]) -> pa.ChunkedArray:
    mask: Any = pa.chunked_array([pa.array([True] * len(table))])
    for name, value in wanted.items():
        if value:
            mask = pc.and_(mask, pc.equal(pc.fill_null(table[name], ""), value))
    return mask


def _hash(messages: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Spending:
    """Statistics over answered questions: what further ones are expected to cost."""

    paid: tuple[Paid, ...]

    @property
    def repair_share(self) -> float:
        """Share of first answers that were refused and asked again."""
        return fmean(p.repaired for p in self.paid) if self.paid else 0.0

    def repairs(self, calls: int) -> tuple[float, float, float]:
        """Return repairs that ``calls`` first questions bring: (expected, low, high)."""
        total, low, high = predicted_total([float(p.repaired) for p in self.paid], calls)
        return total, low, min(high, float(calls))

    def written(self, calls: int) -> tuple[float, float, float]:
        """Return answer tokens of ``calls`` first questions and of their repairs."""
        return predicted_total([p.tokens_out + self._repair(p)[1] for p in self.paid], calls)

    def read_again(self, calls: int) -> tuple[float, float, float]:
        """Return prompt tokens of the repairs that ``calls`` first questions bring."""
        return predicted_total([self._repair(p)[0] for p in self.paid], calls)

    @cached_property
    def one_repair(self) -> tuple[float, float]:
        """Prompt and answer tokens of a repair that is due.

        Where none was asked yet: it repeats the prompt and the refused answer, answered alike.
        """
        known = [p for p in self.paid if p.repair_in]
        if known:
            return fmean(p.repair_in for p in known), fmean(p.repair_out for p in known)
        told = [p for p in self.paid if p.repaired] or self.paid
        return (
            fmean(p.tokens_in + p.tokens_out for p in told), fmean(p.tokens_out for p in told)
        )  # fmt: skip

    def _repair(self, paid: Paid) -> tuple[float, float]:
        if not paid.repaired:
            return 0.0, 0.0
        if paid.repair_in:
            return float(paid.repair_in), float(paid.repair_out)
        return self.one_repair


def characters_per_token(paid: Sequence[Paid]) -> float:
    """Return rendered characters per prompt token of earlier first questions; 0 = unknown."""
    told = [p for p in paid if p.tokens_in and p.characters]
    read = sum(p.tokens_in for p in told)
    return sum(p.characters for p in told) / read if read else 0.0
