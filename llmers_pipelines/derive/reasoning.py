"""The rounds of reasoning about histories: what is asked, what stands, a base of verified steps.

A *step* is a pair of items, of which the later one followed from the earlier for a stated reason
(LLMRG, arXiv:2308.10835). Round r of R sees the training rows of a user up to its *cut*, the first
T - block (R - r) of T rows, so that a graph of round r tells nothing of later rows. Tables of
rounds have one row per user: ``user_id``, ``cut``, ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.text import ACCEPTED
from ..data.training import TrainingData
from ..prompts.checks import content_words, normal
from ..prompts.fields import bare_title
from .derivation import DerivedTable, Given, told_rows

BASE = ("step_id", "after", "item", "reason", "round")


@dataclass(frozen=True)
class _Round(DerivedTable):
    """What the tables of one round share."""

    rows: ClassVar[str] = "entities"

    round: int = 1
    rounds: int = 2
    block: int = 5  # training rows that a round adds
    back: int = 10  # rows before the block that are shown as well

    def __post_init__(self) -> None:
        if not 1 <= self.round <= self.rounds or self.block < 1 or self.back < 1:
            raise ValueError(f"{self}: round is one of 1..rounds; block and back are at least 1")

    def windows(self, data: TrainingData) -> dict[str, tuple[int, list[str], list[str]]]:
        """Return (cut, items shown, items of the block) of each user with rows before the cut.

        Items are told once, at their first row. The first round's block holds what is shown.
        """
        keep = told_rows(data)
        user, item = data.user[keep], data.item[keep]
        start = np.searchsorted(user, np.arange(data.n_users + 2))
        out = {}
        for u in range(1, data.n_users + 1):
            ids = [data.items.ids[i - 1] for i in item[start[u] : start[u + 1]]]
            cut = len(ids) - self.block * (self.rounds - self.round)
            low = max(0, cut - self.block)
            shown = list(dict.fromkeys(ids[max(0, low - self.back) : max(0, cut)]))
            new = [i for i in dict.fromkeys(ids[low : max(0, cut)]) if i in shown]
            if len(shown) > 1:
                fresh = shown[1:] if self.round == 1 else [i for i in new if i != shown[0]]
                out[data.users.ids[u - 1]] = (cut, shown, fresh)
        return out


@dataclass(frozen=True)
class ReasoningRows(_Round):
    """Users with an item of the block that no verified step explains yet: the round's questions.

    Sources: the item table, the splits, and from round 2 on the verified steps. Publishes
    ``items`` and ``titles`` (shown, oldest first), ``asked`` (the items without a step), ``chains``
    (a line per verified step that the user's rows hold). A user all of whose items are explained by
    steps that stand, of whomever, is not asked: the base is read before the model.
    """

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data, title = given.log, titles_in(given.sources)
        base = steps_in(given.sources)
        rows, spared, explained = [], 0, 0
        for user, (cut, shown, fresh) in self.windows(data).items():
            found = chain_steps(shown, base)
            asked = [i for i in fresh if i not in found and title.get(i)]
            explained += sum(i in found for i in fresh)
            if not asked:
                spared += 1
                continue
            told = [i for i in shown if title.get(i)]
            rows.append({
                "user_id": user, "cut": cut, "items": told, "titles": [title[i] for i in told],
                "asked": asked, "chains": step_lines(found, title),
            })  # fmt: skip
        words = pa.list_(pa.string())
        kinds = {"user_id": pa.string(), "cut": pa.int64(), "items": words, "titles": words,
                 "asked": words, "chains": words}  # fmt: skip
        made = pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))
        return made, {"users_asked": len(rows), "users_not_asked": spared,
                      "items_explained_already": explained}  # fmt: skip


@dataclass(frozen=True)
class NewSteps(_Round):
    """Different steps of a round's answers that the base lacks: what is verified, each pair once.

    Sources: the answers (user_id, after, items, reasons), their questions, the item table, the
    splits and, from round 2 on, the verified steps. Where several users give a reason for a pair,
    that of the user who met the later item first stands, so that new users ask nothing anew. A
    reason that gives the masked title away verifies nothing, so it is passed over (``tells``); a
    pair without any other is left out and counted as ``title_told``.
    """

    revision: ClassVar[int] = 2

    agree: float = 0.6  # share of the masked title's words that gives it away, as VerifiedSteps'

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data, title = given.log, titles_in(given.sources)
        known = {(s["after"], s["item"]) for s in steps_in(given.sources).values()}
        answers = given.table("reasons")
        when = first_times(data)
        first: dict[tuple[str, str], tuple[Any, str]] = {}
        proposed, hidden = 0, set()
        for row in answers.to_pylist():
            for after, item, reason in zip(
                row["after"] or (), row["items"] or (), row["reasons"] or (), strict=True
            ):
                if not after or (after, item) in known:
                    continue
                proposed += 1
                rank = (when.get((row["user_id"], item), 0), row["user_id"])
                pair = (after, item)
                if tells(reason, title.get(item, ""), title.get(after, ""), self.agree):
                    hidden.add(pair)
                    continue
                if pair not in first or rank < first[pair][0]:
                    first[pair] = (rank, reason)
        rows = [
            {"step_id": step_id(a, i), "after": a, "item": i, "reason": reason,
             "after_title": title.get(a, ""), "item_title": title.get(i, "")}
            for (a, i), (_, reason) in sorted(first.items())
        ]  # fmt: skip
        names = ("step_id", "after", "item", "reason", "after_title", "item_title")
        made = pa.Table.from_pylist(rows, pa.schema([(n, pa.string()) for n in names]))
        return made, {"steps": len(rows), "proposed": proposed, "known": len(known),
                      "title_told": len(hidden - set(first))}  # fmt: skip


@dataclass(frozen=True)
class VerifiedSteps(DerivedTable):
    """The growing base: steps of earlier rounds, and those of this one that a masked fill-in met.

    Sources: the fill-ins (step_id, text), the steps and the base before. A step stands where the
    title that fills its mask is the masked one, or shares at least ``agree`` of their words.
    """

    rows: ClassVar[str] = "entities"

    round: int = 1
    agree: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.agree <= 1:
            raise ValueError(f"{self}: agree is a share above 0")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        steps = given.table("item_title")
        fills = given.table("status")
        text = {r["step_id"]: r["text"] for r in fills.to_pylist() if r["status"] in ACCEPTED}
        rows = list(steps_in(given.sources).values())
        before = len(rows)
        for step in steps.to_pylist():
            if likeness(text.get(step["step_id"]) or "", step["item_title"]) >= self.agree:
                rows.append({**{c: step[c] for c in BASE[:-1]}, "round": self.round})
        kinds = [(c, pa.string()) for c in BASE[:-1]] + [("round", pa.int64())]
        rows.sort(key=lambda r: r["step_id"])
        made = pa.Table.from_pylist(rows, pa.schema(kinds))
        return made, {"steps": len(rows), "new": len(rows) - before,
                      "refused": steps.num_rows - (len(rows) - before)}  # fmt: skip


@dataclass(frozen=True)
class UserChains(_Round):
    """The chains of verified steps through a user's rows up to the cut, for scoring.

    Sources: the verified steps, the item table and the splits. Each item is reached by at most one
    step, that from the newest earlier item. Publishes ``titles`` (shown), ``chains`` (a line per
    path from a first item to a last one), ``paths`` (the items of each) and ``reasons`` (of its
    steps, one fewer).
    """

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data, title = given.log, titles_in(given.sources)
        base, rows = steps_in(given.sources), []
        for user, (cut, shown, _) in self.windows(data).items():
            found = chain_steps(shown, base)
            if not found:
                continue
            paths = leaf_paths(found)
            rows.append({
                "user_id": user, "cut": cut, "items": shown,
                "titles": [title[i] for i in shown if title.get(i)],
                "chains": [path_line(p, found, title) for p in paths],
                "paths": paths,
                "reasons": [[found[i]["reason"] for i in p[1:]] for p in paths],
            })  # fmt: skip
        words = pa.list_(pa.string())
        kinds = {"user_id": pa.string(), "cut": pa.int64(), "items": words, "titles": words,
                 "chains": words, "paths": pa.list_(words), "reasons": pa.list_(words)}  # fmt: skip
        made = pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))
        return made, {"users": len(rows), "chains": sum(len(r["paths"]) for r in rows)}


@dataclass(frozen=True)
class KeptChains(DerivedTable):
    """Chains whose score reaches ``threshold``; a chain without a score is none.

    Sources: the scores (user_id, scores, in the order of the chains) and the chains. A user without
    a kept chain has no row.
    """

    rows: ClassVar[str] = "entities"

    threshold: int = 6  # of 1 to 10

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        chains = given.table("paths")
        scores = given.table("scores")
        by_user = {r["user_id"]: r["scores"] or () for r in scores.to_pylist()}
        rows, dropped = [], 0
        for row in chains.to_pylist():
            marks = by_user.get(row["user_id"], ())
            keep = [n for n, score in enumerate(marks) if score >= self.threshold]
            dropped += len(row["paths"]) - len(keep)
            if keep:
                kept = {c: [row[c][n] for n in keep] for c in ("chains", "paths", "reasons")}
                rows.append({**row, **kept})
        made = pa.Table.from_pylist(rows, chains.schema)
        return made, {"users": len(rows), "chains_dropped": dropped}


def chain_steps(
    shown: Sequence[str], base: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return the step that reaches each item, from the newest earlier item that has one."""
    found = {}
    for place, item in enumerate(shown):
        step = next((base[a, item] for a in reversed(shown[:place]) if (a, item) in base), None)
        if step is not None:
            found[item] = step
    return found


def leaf_paths(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the path from a first item to each last one, in the order of ``found``."""
    starts = {step["after"] for step in found.values()}
    paths = []
    for leaf in found:
        if leaf in starts:
            continue
        path = [leaf]
        while path[0] in found:
            path.insert(0, found[path[0]]["after"])
        paths.append(path)
    return paths


def path_line(
    path: Sequence[str], found: Mapping[str, Mapping[str, Any]], title: Mapping[str, str]
) -> str:
    parts = [title.get(path[0], "")]
    parts += [f"({found[i]['reason']}) {title.get(i, '')}" for i in path[1:]]
    return " -> ".join(parts)


def step_lines(found: Mapping[str, Mapping[str, Any]], title: Mapping[str, str]) -> list[str]:
    """Return the chains of verified steps as lines."""
    return [path_line(p, found, title) for p in leaf_paths(found)]


def likeness(one: str, two: str) -> float:
    """Return 1 for equal titles, else the share of their words that they have in common."""
    one, two = bare_title(one.strip().strip('".')), bare_title(two)
    if not normal(one) or not normal(two):
        return 0.0
    if normal(one) == normal(two):
        return 1.0
    words = (set(content_words(one)), set(content_words(two)))
    return len(words[0] & words[1]) / max(1, len(words[0] | words[1]))


def tells(reason: str, title: str, shown: str, agree: float) -> bool:
    """Return whether a reason gives the masked title away.

    It does where it holds the title, or at least the share ``agree`` of the title's content words,
    those left out that the shown title has. A title without a content word ("Us") is looked for as
    it is written, capitals included.
    """
    words = set(content_words(title))
    if not words:
        found = rf"\b{re.escape(title)}\b" if title and title != shown else "(?!)"
        return re.search(found, reason) is not None
    if f" {normal(title)} " in f" {normal(reason)} ":
        return normal(title) != normal(shown)
    new = words - set(content_words(shown))
    return bool(new) and len(new & set(content_words(reason))) >= agree * len(new)


def step_id(after: str, item: str) -> str:
    return f"{after}>{item}"


def steps_in(sources: Sequence[Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the verified steps by pair; none where the base is not among the sources."""
    tables = [s for s in sources if isinstance(s, pa.Table) and set(BASE) <= set(s.column_names)]
    return {(r["after"], r["item"]): r for t in tables for r in t.to_pylist()}


def titles_in(sources: Sequence[Any]) -> dict[str, str]:
    """Return the bare title of each item of the item table."""
    for table in sources:
        if isinstance(table, pa.Table) and {"item_id", "title"} <= set(table.column_names):
            pairs = zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True)
            return {i: bare_title(t) for i, t in pairs if t}
    raise ValueError("the item table, with item_id and title, is missing among the sources")


def first_times(data: TrainingData) -> dict[tuple[str, str], int]:
    """Return when each user met each item first, of the training rows."""
    keep = told_rows(data)
    out: dict[tuple[str, str], int] = {}
    rows = zip(data.user[keep].tolist(), data.item[keep].tolist(), data.time[keep].tolist(),
               strict=True)  # fmt: skip
    for u, i, time in rows:
        out.setdefault((data.users.ids[u - 1], data.items.ids[i - 1]), time)
    return out
