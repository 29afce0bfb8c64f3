"""One bipartite graph per aspect, of training rows whose review or item speaks of it (SAGCN)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from ..data.training import TRAIN, TrainingData
from .derivation import DerivedTable, Given
from .reviews import AspectVocabulary, phrase_lists


class _Edges(DerivedTable):
    """What both kinds of edges share; publishes user_id, item_id, aspect, each once, sorted."""

    rows: ClassVar[str] = "edges"

    def _published(
        self, edges: Iterable[tuple[str, str, str]], data: TrainingData, told: dict[str, Any]
    ) -> tuple[pa.Table, dict[str, Any]]:
        train = _pairs(data)
        every = set(edges)
        kept = sorted(e for e in every if e[:2] in train)
        columns = list(zip(*kept, strict=True)) or [(), (), ()]
        names = ("user_id", "item_id", "aspect")
        made = {n: pa.array(c, pa.string()) for n, c in zip(names, columns, strict=True)}
        spoken = len({e[:2] for e in kept})
        return pa.table(made), {
            "edges": len(kept), "aspects": len({a for *_, a in kept}), "pairs": spoken,
            "pairs_without": len(train) - spoken, "no_training_row": len(every) - len(kept), **told,
        }  # fmt: skip


@dataclass(frozen=True)
class ReviewAspectEdges(_Edges):
    """``G_a = {(u, i) in train: the review of (u, i) speaks of a}``.

    Sources: the splits, the reviews (review_id, user_id, item_id) and what was found in them
    (review_id, aspects; null where there is no answer).
    """

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        reviews = given.table("review_id", "user_id", "item_id")
        answers = given.table("review_id", "aspects", "status")
        ids = zip(reviews["user_id"].to_pylist(), reviews["item_id"].to_pylist(), strict=True)
        owner = dict(zip(reviews["review_id"].to_pylist(), ids, strict=True))
        told = zip(answers["review_id"].to_pylist(), answers["aspects"].to_pylist(), strict=True)
        edges = ((*owner[r], a) for r, found in told if r in owner for a in found or ())
        return self._published(edges, data, {"reviews": len(owner)})


@dataclass(frozen=True)
class ItemAspectEdges(_Edges):
    """``G_a = {(u, i) in train: what is said of i speaks of a}``, where no review is at hand.

    A coarser graph than that of reviews: an item's aspects hold for all who met it. Sources: the
    splits, the vocabulary (aspect, stem) and answers about items with lists of phrases.
    """

    words: AspectVocabulary = field(default_factory=AspectVocabulary)

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data = given.log
        vocabulary = given.table("aspect", "stem")
        answers = given.table("item_id", "status")
        told = zip(answers["item_id"].to_pylist(), phrase_lists(answers), strict=True)
        aspects = {item: self.words.aspects_of(phrases, vocabulary) for item, phrases in told}
        edges = ((u, i, a) for u, i in _pairs(data) for a in aspects.get(i, ()))
        silent = sum(not a for a in aspects.values())
        return self._published(edges, data, {"items": len(aspects), "items_without": silent})


def _pairs(data: TrainingData) -> set[tuple[str, str]]:
    """Return the training pairs by id."""
    rows = data.split == TRAIN
    users, items = data.users.ids, data.items.ids
    pairs = zip(data.user[rows].tolist(), data.item[rows].tolist(), strict=True)
    return {(users[u - 1], items[i - 1]) for u, i in pairs}
