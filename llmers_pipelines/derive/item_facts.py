"""What a knowledge graph says of each item: its own facts, and the items that share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import pyarrow as pa

from .derivation import DerivedTable, Given

TRIPLES = {"head_id", "relation", "tail_id", "tail"}
LINKS = {"item_id", "entity_id"}


@dataclass(frozen=True)
class ItemFacts(DerivedTable):
    """The neighbourhood of each item in a knowledge graph, in words (CoLaKG, arXiv:2410.12229).

    Sources: triples (head_id, relation, tail_id, tail; ``head`` where it is there) and the entity
    of each item (item_id, entity_id). Publishes ``item_id``, ``facts`` (a line per relation with
    the names of its tails) and ``related`` (a line per shared tail with the names of at most
    ``others`` items that share it). Items without a triple have no row. No interaction is read.

    ``weak`` relations are told of nothing. Where more is there than ``tails`` per relation or
    ``shared`` lines, what is kept is drawn by a hash of the ids, so that it depends neither on the
    order of the file nor on other items. A tail that more than ``common`` items share relates
    nobody: it is a country, not a link.
    """

    rows: ClassVar[str] = "entities"

    tails: int = 8
    shared: int = 10
    others: int = 4
    common: int = 200
    weak: tuple[str, ...] = ("related_to_wikipage",)

    def __post_init__(self) -> None:
        if min(self.tails, self.shared, self.others, self.common) < 1:
            raise ValueError(f"{self}: tails, shared, others and common are at least 1")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        kg, link = _tables(given.sources)
        item_of = _items(link)
        triples = _triples(kg, item_of, self.weak)
        name = _names(kg, triples)
        sharing: dict[tuple[str, str], list[str]] = {}
        for head, relation, tail in triples:
            sharing.setdefault((relation, tail), []).append(head)
        own: dict[str, dict[str, list[str]]] = {}
        for head, relation, tail in triples:
            own.setdefault(head, {}).setdefault(relation, []).append(tail)
        ids, facts, related = [], [], []
        for entity, items in item_of.items():
            if entity not in own:
                continue
            lines = self._facts(entity, own[entity], name)
            links = self._related(entity, own[entity], sharing, name)
            for item in items:
                ids.append(item)
                facts.append(lines)
                related.append(links)
        table = pa.table({
            "item_id": pa.array(ids, pa.string()),
            "facts": pa.array(facts, pa.list_(pa.string())),
            "related": pa.array(related, pa.list_(pa.string())),
        })  # fmt: skip
        return table, {"items": len(ids), "triples": len(triples),
                       "without_facts": sum(map(len, item_of.values())) - len(ids)}  # fmt: skip

    def _facts(self, entity: str, own: dict[str, list[str]], name: dict[str, str]) -> list[str]:
        lines = []
        for relation in sorted(own):
            chosen = _drawn(own[relation], self.tails, entity)
            more = len(own[relation]) - len(chosen)
            told = ", ".join(sorted(name[t] for t in chosen))
            lines.append(f"{words(relation)}: {told}" + (f" and {more} more" if more else ""))
        return lines

    def _related(
        self, entity: str, own: dict[str, list[str]],
        sharing: dict[tuple[str, str], list[str]], name: dict[str, str],
    ) -> list[str]:  # fmt: skip
        links = [
            (relation, tail) for relation, tails in own.items() for tail in tails
            if 1 < len(sharing[relation, tail]) <= self.common
        ]  # fmt: skip
        by_key = {f"{relation} {tail}": (relation, tail) for relation, tail in links}
        lines = []
        for key in sorted(_drawn(list(by_key), self.shared, entity)):
            relation, tail = by_key[key]
            heads = [h for h in sharing[relation, tail] if h != entity]
            told = ", ".join(sorted(name[h] for h in _drawn(heads, self.others, entity + key)))
            lines.append(f"{words(relation)} {name[tail]}, as do: {told}")
        return lines


def words(name: str) -> str:
    """Return a relation's or an entity's name as words: no underscores, no prefix of a category."""
    return " ".join(name.removeprefix("Category:").replace("_", " ").split())


def _tables(sources: Sequence[Any]) -> tuple[pa.Table, pa.Table]:
    found = []
    for needed, what in ((TRIPLES, "triples"), (LINKS, "links of items to entities")):
        tables = [s for s in sources if isinstance(s, pa.Table)]
        fit = [t for t in tables if needed <= set(t.column_names)]
        if not fit:
            there = "; ".join(", ".join(t.column_names) for t in tables) or "no table"
            raise ValueError(
                f"ItemFacts needs {what} with columns {', '.join(sorted(needed))}; found {there}; "
                "map them in the data set's description (a graph without names cannot be told)"
            )
        found.append(fit[0])
    return found[0], found[1]


def _items(link: pa.Table) -> dict[str, list[str]]:
    """Return the items of each entity, both sorted."""
    out: dict[str, list[str]] = {}
    pairs = zip(link["entity_id"].to_pylist(), link["item_id"].to_pylist(), strict=True)
    for entity, item in sorted({(str(e), str(i)) for e, i in pairs if None not in (e, i)}):
        out.setdefault(entity, []).append(item)
    return out


def _triples(
    kg: pa.Table, item_of: dict[str, list[str]], weak: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return each triple of an item's entity once, sorted; incomplete and weak ones are left."""
    rows = zip(*(kg[c].to_pylist() for c in ("head_id", "relation", "tail_id")), strict=True)
    return sorted({
        (str(h), str(r), str(t)) for h, r, t in rows
        if None not in (h, r, t) and str(h) in item_of and r not in weak and str(t) != str(h)
    })  # fmt: skip


def _names(kg: pa.Table, triples: list[tuple[str, str, str]]) -> dict[str, str]:
    """Return the name of each entity in words; its id where it has none."""
    name = {e: e for h, _, t in triples for e in (h, t)}
    for side in ("head", "tail"):
        if side in kg.column_names:
            pairs = zip(kg[f"{side}_id"].to_pylist(), kg[side].to_pylist(), strict=True)
            name |= {str(e): words(str(n)) for e, n in pairs if n and str(e) in name}
    return name


def _drawn(values: list[str], n: int, salt: str) -> list[str]:
    """Return at most ``n`` of ``values``, drawn by a hash of each with ``salt``."""
    if len(values) <= n:
        return values
    return sorted(values, key=lambda value: blake2b(f"{salt} {value}".encode()).digest())[:n]
