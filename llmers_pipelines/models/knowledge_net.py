"""What recommenders over a knowledge graph share: triples joined to the log, and their sampling.

Shapes: T triples, B batch, N items, M entities that are no item of the log, R relations, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .factor_net import FactorNet
from .hooks_net import seeded

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.training import IdMap
    from ..plan import Node

TRIPLE, LINK = ("head_id", "relation", "tail_id"), ("item_id", "entity_id")


@dataclass(frozen=True)
class KnowledgeSettings:
    """Where the triples come from and how many of them count how much in a step."""

    kg: Node
    link: Node
    weight: float
    batch: int


@dataclass(frozen=True)
class Triples:
    """Entities 1..N are the items of the log, N + 1 .. N + M all others; 0 is padding."""

    head: np.ndarray  # int64[T]
    relation: np.ndarray  # int64[T], 0-based
    tail: np.ndarray  # int64[T]
    n_entities: int  # N + M
    linked: np.ndarray  # bool[N + 1], items that some triple speaks of
    relations: tuple[str, ...]


def join_triples(kg: pa.Table, link: pa.Table, items: IdMap, name: str) -> Triples:
    """Number the entities of ``kg`` (head_id, relation, tail_id) with the items of ``link``.

    An item of the log that ``link`` (item_id, entity_id) names takes its entity's place; where
    several items share an entity, the first of them does. Equal triples count once, rows with an
    empty cell not at all. Raises ValueError for missing columns and where no triple speaks of an
    item of the log.
    """
    for table, columns, what in ((kg, TRIPLE, "triples"), (link, LINK, "links")):
        missing = sorted(set(columns) - set(table.column_names))
        if missing:
            raise ValueError(
                f"{name}: the {what} have columns {table.column_names} and lack {missing}; map "
                "them in the data set's description"
            )
    n = len(items)
    position = items.index([str(i) for i in link["item_id"].to_pylist()])
    entity_of = [str(e) for e in link["entity_id"].to_pylist()]
    place: dict[str, int] = {}
    for entity, item in zip(entity_of, position.tolist(), strict=True):
        if item:
            place.setdefault(entity, item)
    kg = kg.select(list(TRIPLE)).drop_null()
    (head, heads), (relation, names), (tail, tails) = (_coded(kg[c]) for c in TRIPLE)
    entities = sorted(set(heads) | set(tails))
    rank = {entity: at for at, entity in enumerate(entities)}
    head = np.array([rank[e] for e in heads], np.int64)[head]
    tail = np.array([rank[e] for e in tails], np.int64)[tail]
    order = np.lexsort((tail, relation, head))
    rows = np.stack([head, relation, tail])[:, order]
    rows = rows[:, np.diff(rows, axis=1, prepend=-1).any(axis=0)]
    number = np.array([place.get(e, 0) for e in entities], np.int64)
    others = np.flatnonzero(number == 0)
    number[others] = np.arange(n + 1, n + 1 + len(others))
    head, relation, tail = number[rows[0]], rows[1], number[rows[2]]
    linked = np.zeros(n + 1, bool)
    ends = np.concatenate([head, tail])
    linked[ends[ends <= n]] = True
    if not linked.any():
        raise ValueError(
            f"{name}: none of {len(head)} triples speaks of an item of the log; are the links of "
            f"this data set? items: {list(items.ids[:3])}, links: {entity_of[:3]}"
        )
    return Triples(head, relation, tail, n + len(others), linked, tuple(names))


def _coded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return each row's place among the sorted distinct values, int64[T], and these as texts."""
    coded = column.combine_chunks().dictionary_encode()
    words = [str(value) for value in coded.dictionary.to_pylist()]
    known = sorted(set(words))
    rank = {word: at for at, word in enumerate(known)}
    return np.array([rank[w] for w in words], np.int64)[coded.indices.to_numpy()], known


class KnowledgeNet(FactorNet):
    """A ``FactorNet`` that learns triples beside the log; what is served is a plain ``FactorNet``.

    ``read`` joins the triples before training; a subclass makes its tables in ``_learns`` and gives
    ``users``, ``items`` and ``triple_loss``.
    """

    def __init__(self, *, knowledge: KnowledgeSettings, **settings: Any) -> None:
        super().__init__(**settings)
        self.knowledge = knowledge

    def read(self, data: Any, inputs: Any, seed: int) -> None:
        """Join the triples to the items of ``data`` and make the tables of entities."""
        how = self.knowledge
        triples = join_triples(inputs[how.kg], inputs[how.link], data.items, how.kg.name)
        for name in ("head", "relation", "tail"):
            value = torch.from_numpy(getattr(triples, name))
            self.register_buffer(f"triple_{name}", value, persistent=False)
        self.n_entities = triples.n_entities
        with seeded(seed, 8):
            self._learns(triples)

    def _learns(self, triples: Triples) -> None:
        raise NotImplementedError

    def users(self) -> Tensor:
        """Return (U + 1, D); row 0 is zero."""
        raise NotImplementedError

    def items(self) -> Tensor:
        """Return (N + 1, D); row 0 is zero."""
        raise NotImplementedError

    def triple_loss(self, head: Tensor, relation: Tensor, tail: Tensor, wrong: Tensor) -> Tensor:
        """Return the mean loss of triples (T,) against the same with the tail ``wrong`` (T,)."""
        raise NotImplementedError

    def _final(self) -> tuple[Tensor, Tensor]:
        return (self.users(), self.items()) if self._vectors is None else self._vectors

    def _parts(self) -> tuple[Tensor, Tensor]:
        return self._final() if self._added is None else self._added

    def loss(self, batch: Any) -> Tensor:
        """The objective on the pairs plus ``weight`` times the loss of a draw of triples."""
        main = super().loss(batch)
        if not self.knowledge.weight:
            return main
        head = self.triple_head
        rows = torch.randint(len(head), (self.knowledge.batch,), device=head.device)
        wrong = torch.randint(1, self.n_entities + 1, (len(rows),), device=head.device)
        given = head[rows], self.triple_relation[rows], self.triple_tail[rows]
        return main + self.knowledge.weight * self.triple_loss(*given, wrong)
