"""Texts that travel over the user-item graph, a hop per round (GaCLLM, arXiv:2402.08859)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar, Literal

import pyarrow as pa

from ..data.schema import DataError
from ..data.text import ACCEPTED, ItemText
from ..data.training import TrainingData
from .derivation import DerivedTable, Given, told_rows

Side = Literal["user", "item"]
_OTHER = {"user": "item", "item": "user"}


@dataclass(frozen=True)
class RawTexts(DerivedTable):
    """The text of each user or item before the first round: item_id or user_id, text, round.

    Sources: the table of the side and the splits, whose ids decide the rows. An item's text is its
    declared words; a user's the columns that ``fields`` names, and none by default: ages and zip
    codes invite a model to remember public data sets. ``round`` is 0.
    """

    rows: ClassVar[str] = "entities"
    reads_words: ClassVar[bool] = True

    side: Side = "item"
    fields: tuple[str, ...] = ()

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        column = f"{self.side}_id"
        table = given.table(column)
        told = dict(zip(table[column].to_pylist(), self._texts(table, given.context), strict=True))
        ids = data.users.ids if self.side == "user" else data.items.ids
        texts = [told.get(i, "") for i in ids]
        made = pa.table({
            column: pa.array(ids, pa.string()), "text": pa.array(texts, pa.string()),
            "round": pa.array([0] * len(ids), pa.int64()),
        })  # fmt: skip
        return made, {"rows": len(ids), "without_text": texts.count("")}

    def _texts(self, table: pa.Table, context: Mapping[str, Any] | None) -> list[str]:
        if self.side == "item":
            kinds = (context or {}).get("fields")
            return list(ItemText(self.fields).texts(table=table, fields=kinds).texts)
        if missing := [name for name in self.fields if name not in table.column_names]:
            raise DataError(f"the user table has no column {missing[0]!r}, which fields names; it "
                            f"has {', '.join(table.column_names)}")  # fmt: skip
        columns = [table[name].to_pylist() for name in self.fields]
        cells = zip(*columns, strict=True) if columns else [()] * table.num_rows
        return [
            "; ".join(f"{n}: {v}" for n, v in zip(self.fields, row, strict=True) if v)
            for row in cells
        ]


@dataclass(frozen=True)
class Neighbourhood(DerivedTable):
    """What round ``round`` shows of each node: its own text and those of sampled neighbours.

    Sources, in any order: the splits, the raw texts of both sides, and from round 2 on the answers
    of round ``round`` - 1 of both sides. All texts are those of the round before (both sides of a
    round are one batch), a node without an accepted answer has its raw text in place. Neighbours
    are those of the training rows, at most ``n``, drawn by a hash of the two ids: the same ones in
    every round. Publishes the id, ``own``, ``neighbours`` and ``neighbour_ids``; texts are cut at
    ``limit`` characters.
    """

    rows: ClassVar[str] = "entities"

    side: Side = "user"
    round: int = 1
    n: int = 8
    limit: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.round < 1:
            raise ValueError(f"{self}: at least one neighbour and round 1 are needed")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        texts = {side: texts_before(given.sources, side, self.round) for side in _OTHER}
        around = drawn_neighbours(data, self.side, self.n, self.seed)
        ids = data.users.ids if self.side == "user" else data.items.ids
        other = texts[_OTHER[self.side]]
        rows: dict[str, list[Any]] = {"own": [], "neighbours": [], "neighbour_ids": []}
        for own in ids:
            told = [(o, other[o][: self.limit]) for o in around.get(own, ()) if other.get(o)]
            rows["own"].append(texts[self.side].get(own, "")[: self.limit])
            rows["neighbours"].append([text for _, text in told])
            rows["neighbour_ids"].append([o for o, _ in told])
        words = pa.list_(pa.string())
        made = pa.table({
            f"{self.side}_id": pa.array(ids, pa.string()),
            "own": pa.array(rows["own"], pa.string()),
            "neighbours": pa.array(rows["neighbours"], words),
            "neighbour_ids": pa.array(rows["neighbour_ids"], words),
        })  # fmt: skip
        alone = sum(not r for r in rows["neighbours"])
        return made, {"rows": len(ids), "without_neighbours": alone}


@dataclass(frozen=True)
class MatchedTexts(DerivedTable):
    """Examples for tuning: a user's text and some training items, and one more item to describe.

    At most ``examples`` training pairs, drawn by a hash of their ids; the prompt shows the user's
    raw text and at most ``n`` other training items, the answer is the raw text of the pair's item.
    """

    rows: ClassVar[str] = "examples"

    examples: int = 10_000
    n: int = 4
    limit: int = 400
    seed: int = 0

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        users, items = (texts_before(given.sources, side, 1) for side in ("user", "item"))
        around = drawn_neighbours(data, "user", data.n_items, self.seed)
        pairs = [(u, i) for u in data.users.ids for i in around.get(u, ()) if items.get(i)]
        pairs = sorted(pairs, key=lambda p: _draw(self.seed, "pair", *p))[: self.examples]
        rows = []
        for user, item in sorted(pairs):
            shown = [i for i in around[user] if i != item and items.get(i)][: self.n]
            told = [f"Person: {users[user][: self.limit]}"] if users.get(user) else []
            told += [f"- {' '.join(items[i].split())[: self.limit]}" for i in shown]
            ask = "Describe one more item that fits a person who chose these."
            rows.append({
                "example_id": f"{user}/{item}", "user_id": user, "shown": [*shown, item],
                "prompt": json.dumps([{"role": "user", "content": "\n".join([*told, ask])}],
                                     ensure_ascii=False),
                "answer": [items[item][: self.limit]],
            })  # fmt: skip
        words = pa.list_(pa.string())
        kinds = {"example_id": pa.string(), "user_id": pa.string(), "shown": words,
                 "prompt": pa.string(), "answer": words}  # fmt: skip
        schema = pa.schema(list(kinds.items()))
        return pa.Table.from_pylist(rows, schema), {"examples": len(rows)}


def texts_before(sources: Sequence[Any], side: str, number: int) -> dict[str, str]:
    """Return the text of each node of ``side`` before round ``number``.

    Round 1 reads raw texts alone. ValueError where a later round lacks the answers of ``side``.
    """
    column = f"{side}_id"
    tables = [s for s in sources if isinstance(s, pa.Table) and s.column_names[0] == column]
    raw = next((t for t in tables if "round" in t.column_names), None)
    answers = next((t for t in tables if "status" in t.column_names), None)
    if raw is None or (number > 1 and answers is None):
        raise ValueError(f"round {number} needs the raw texts of both sides, and from round 2 on "
                         f"the answers before it; those of {side}s are missing")  # fmt: skip
    texts = dict(zip(raw[column].to_pylist(), raw["text"].to_pylist(), strict=True))
    if number > 1 and answers is not None:
        cells = (answers[c].to_pylist() for c in (column, "text", "status"))
        texts |= {i: t for i, t, status in zip(*cells, strict=True) if t and status in ACCEPTED}
    return texts


def drawn_neighbours(data: TrainingData, side: str, n: int, seed: int) -> dict[str, list[str]]:
    """Return at most ``n`` neighbours of each node by its training rows, in drawn order."""
    rows = told_rows(data)
    pairs = sorted(set(zip(data.user[rows].tolist(), data.item[rows].tolist(), strict=True)))
    found: dict[str, list[str]] = {}
    for u, i in pairs:
        user, item = data.users.ids[u - 1], data.items.ids[i - 1]
        own, other = (user, item) if side == "user" else (item, user)
        found.setdefault(own, []).append(other)
    return {
        own: sorted(others, key=lambda o: _draw(seed, side, own, o))[:n]
        for own, others in found.items()
    }


def _draw(seed: int, *words: str) -> bytes:
    return blake2b("\x00".join([str(seed), *words]).encode(), digest_size=16).digest()
