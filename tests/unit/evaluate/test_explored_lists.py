"""Explored lists: utility on a hand-computed case, and what a curve holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmers_pipelines.data.training import IdMap, TrainingData
from llmers_pipelines.enhance.hierarchy_tree import HierarchyTree
from llmers_pipelines.evaluate.exploration import K, curve, mixed_lists, utility
from llmers_pipelines.evaluate.predict import TopK, top_k_lists
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hgcf import HGCF
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit

pytestmark = pytest.mark.proof("harec", "equations")


def log() -> TrainingData:
    """Two users; user 1 trained on item 1 and has items 3 and 4 at test, user 2 has item 5."""
    rows = [(1, 1, 0), (1, 2, 1), (1, 3, 2), (1, 4, 2), (2, 1, 0), (2, 3, 1), (2, 5, 2)]
    user, item, split = (np.array(c) for c in zip(*rows, strict=True))
    return TrainingData(
        "collaborative", IdMap(("a", "b")), IdMap(tuple("vwxyz")), user, item,
        np.arange(len(rows)), split.astype(np.int8),
    )  # fmt: skip


def test_golden_case_of_utility():
    """User 1 hits at place 2 of 3 of two targets, user 2 nothing."""
    lists = TopK(np.array([1, 2]), np.array([[5, 3, 0], [2, 4, 0]]))
    found = utility(lists, log())
    ideal = 1 + 1 / math.log2(3)
    assert found["recall@3"] == pytest.approx(0.25)
    assert found["ndcg@3"] == pytest.approx((1 / math.log2(3)) / ideal / 2)


def test_explored_places_are_below_the_ancestor_and_never_seen():
    places = np.array([0, 0, 1], np.int32), np.array([0, 0, 0, 1, 0, 1], np.int32), 1
    plain = TopK(np.array([1, 2]), np.array([[3, 5], [4, 2]]))
    for seed in range(9):
        lists = mixed_lists(plain, log(), places, 0.5, 1, seed).items
        assert lists[0].tolist() == [3, 4]  # 1 and 2 are seen, 4 alone is left in the half
        assert lists[1].tolist() == [4, 5]  # user 2 saw 1 and 3
    assert mixed_lists(plain, log(), places, 0.0, 0).items.tolist() == plain.items.tolist()


def test_a_curve_starts_with_the_plain_list_and_gives_utility_for_coverage():
    data = planted_rings(n_users=60, n_items=60).data
    how = HGCF(dim=4, layers=2, negatives=1, fit=Fit(lr=1.0, batch=64, epochs=20, min_epochs=20))
    node = Train(how, Table("splits", task="collaborative"), fuse=(HierarchyTree(layers=4),))
    trained = fit(node, data, {}, seed=0)
    rows = curve(trained, data).to_pylist()
    assert [(r["temperature"], r["layer"]) for r in rows] == [
        (0.0, 0), *((t, y) for t in (0.25, 0.5, 1.0) for y in (0, 2, 4))
    ]  # fmt: skip
    plain = utility(top_k_lists(trained, data, K), data)
    assert rows[0][f"recall@{K}"] == plain[f"recall@{K}"]
    widest = {r["temperature"]: r for r in rows if r["layer"] == 0}
    assert widest[1.0][f"ndcg@{K}"] < widest[0.5][f"ndcg@{K}"] < rows[0][f"ndcg@{K}"]
    assert widest[1.0]["entropy"] > rows[0]["entropy"]
