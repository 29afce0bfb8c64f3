from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.models import ranking_net
from llmers_pipelines.models.batches import left_pad
from llmers_pipelines.models.histories import history_before, rows_of, unique_pairs
from llmers_pipelines.models.ranking_net import Ranks, ndcg, rank_metric, rank_targets
from llmers_pipelines.testing.planted import planted_rings


class Fixed(nn.Module):
    """Scores from a table, one row per user."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", torch.as_tensor(table))

    def user_state(self, batch):
        return self.table[batch.user]

    def score(self, state, ids=None):
        return state.clone()

    def keep(self):
        pass

    release = keep


def log(user, item, split, n_items=6):
    n = len(user)
    users = IdMap(tuple(f"u{u}" for u in range(1, max(user) + 1)))
    return TrainingData(
        "sequential", users, IdMap(tuple(f"i{i}" for i in range(1, n_items + 1))),
        np.array(user), np.array(item), np.arange(n), np.array(split, np.int8),
    )  # fmt: skip


def test_ties_count_half_and_seen_items_do_not_take_part():
    data = log([1, 1, 1, 2, 2], [1, 5, 2, 1, 2], [TRAIN, TRAIN, TEST, TRAIN, TEST])
    table = np.zeros((3, 7), np.float32)
    table[1] = [99, 50, 1, 1, 1, 60, 0]  # items 1 and 5 are seen; 2 ties with 3 and 4
    table[2] = [99, 50, 5, 7, 1, 5, 5]
    ranks = rank_targets(Fixed(table), data, TEST)
    assert ranks.rank.tolist() == [2.0, 3.0]
    assert ranks.candidates.tolist() == [4, 5]


def test_constant_and_missing_scores_land_in_the_middle():
    data = planted_rings(n_users=12, n_items=20).data
    for value in (0.0, np.nan):
        ranks = rank_targets(Fixed(np.full((13, 21), value, np.float32)), data, TEST)
        np.testing.assert_allclose(ranks.rank, 1 + (ranks.candidates - 1) / 2)


def test_several_targets_per_user_and_a_target_seen_before():
    data = log([1, 1, 1, 1, 1], [1, 2, 3, 4, 1], [TRAIN, TEST, TEST, TEST, TEST])
    table = np.array([[0.0] * 7, [0, 9, 3, 1, 2, 5, 0]], np.float32)
    ranks = rank_targets(Fixed(table), data, TEST)
    assert ranks.item.tolist() == [2, 3, 4]  # item 1 was seen
    assert ranks.rank.tolist() == [2.0, 4.0, 3.0]
    gain = sum(1 / math.log2(r + 1) for r in (2, 3, 4))
    ideal = sum(1 / math.log2(r + 1) for r in (1, 2, 3))
    assert ndcg(ranks) == pytest.approx(gain / ideal)
    assert ndcg(ranks, 2) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_blocks_give_the_ranks_of_a_plain_sort(monkeypatch):
    monkeypatch.setattr(ranking_net, "CACHE_FLOATS", 60)
    monkeypatch.setattr(ranking_net, "STATE_ROWS", 7)
    data = planted_rings(n_users=30, n_items=20).data
    table = np.random.default_rng(0).standard_normal((31, 21)).astype(np.float32)
    ranks = rank_targets(Fixed(table), data, TEST)
    seen = history_before(data, TEST)
    for user, item, rank, candidates in zip(
        ranks.user, ranks.item, ranks.rank, ranks.candidates, strict=True
    ):
        open_items = [i for i in range(1, 21) if i not in seen.of(user)]
        order = sorted(open_items, key=lambda i: -table[user, i])
        assert rank == order.index(item) + 1
        assert candidates == len(open_items)


def test_golden_metrics_of_known_ranks():
    ranks = Ranks(np.arange(4), np.arange(4), np.array([1.0, 3, 10, 11]), np.full(4, 50))
    assert rank_metric("hr@10", ranks) == 0.75
    assert rank_metric("ndcg@10", ranks) == pytest.approx(0.447266, abs=1e-6)
    with pytest.raises(ValueError, match="unknown ranking metric 'auc'"):
        rank_metric("auc", ranks)


def test_histories_before_a_split_keep_the_order_and_the_rules():
    data = log([1, 1, 1, 1, 2, 2], [5, 4, 3, 2, 1, 6], [HISTORY, TRAIN, VALID, TEST, TRAIN, VALID])
    assert history_before(data, VALID).of(1).tolist() == [5, 4]
    assert history_before(data, TEST).of(1).tolist() == [5, 4, 3]
    assert history_before(data, TEST).of(2).tolist() == [1, 6]
    assert rows_of(data, (TRAIN,)).user.tolist() == [1, 2]
    with pytest.raises(ValueError, match="before split 'train'"):
        history_before(data, TRAIN)


def test_pairs_are_unique_and_sorted():
    user, item = unique_pairs(np.array([2, 1, 2, 2]), np.array([3, 3, 1, 3]), 3)
    assert (user.tolist(), item.tolist()) == ([1, 2, 2], [3, 1, 3])


def test_left_padding_keeps_the_newest():
    rows = [np.array([1, 2, 3]), np.array([], int), np.array([4])]
    assert left_pad(rows, 2).tolist() == [[2, 3], [0, 0], [0, 4]]
    assert left_pad([np.array([], int)]).tolist() == [[0]]
