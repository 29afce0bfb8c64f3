from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.derive.candidates import PastModel, TopCandidates, best, held_out_seen
from llmers_pipelines.testing.planted import planted_rings


def log(users="uv", items="abcde", rows=()):
    """A log of rows (user, item, split), sorted by user."""
    who, what = IdMap(tuple(users)), IdMap(tuple(items))
    user, item, split = zip(*sorted(rows, key=lambda r: r[0]), strict=True)
    return TrainingData(
        "sequential", who, what, who.index(user), what.index(item),
        np.arange(len(rows)), np.array(split, np.int8),
    )  # fmt: skip


LOG = log(rows=[("u", "a", TRAIN), ("u", "b", VALID), ("u", "c", TEST), ("v", "b", TRAIN)])


def by_position(users, histories):
    """Scores that fall with the position, equal for the last two items; nothing for padding."""
    return np.tile(np.array([9.0, 5, 4, 3, 1, 1], np.float32), (len(users), 1))


def rows(table):
    return list(zip(*(table[c].to_pylist() for c in ("user_id", "rank", "item_id")), strict=True))


def test_the_best_unseen_items_are_offered_best_first():
    table, info = TopCandidates(n=3).apply([PastModel(LOG, by_position), LOG])
    assert rows(table) == [("u", 1, "b"), ("u", 2, "c"), ("u", 3, "d"),
                           ("v", 1, "a"), ("v", 2, "c"), ("v", 3, "d")]  # fmt: skip
    assert info == {"users": 2, "without_history": 0, "new_items": 0, "held_out_seen": 0}


def test_ties_go_to_the_earlier_item_and_what_has_no_score_is_not_offered():
    assert best(np.array([0.0, 1, 2, 1, 2, 1]), 4).tolist() == [2, 4, 1, 3]
    assert best(np.array([-np.inf, 3, -np.inf, 1]), 3).tolist() == [1, 3]
    few = log(items="ab", rows=[("u", "a", TRAIN)])
    model = PastModel(few, lambda u, h: np.zeros((len(u), 3), np.float32))
    table, info = TopCandidates().apply([model, few])
    assert rows(table) == [("u", 1, "b")] and info["without_history"] == 1


def test_what_is_held_out_changes_nothing():
    data = planted_rings(n_users=40, n_items=20).data
    asked = []

    def scores(users, histories):
        asked.append([h.tolist() for h in histories])
        known = np.random.default_rng(0).standard_normal((data.n_users + 1, data.n_items + 1))
        return known[users].astype(np.float32)

    first, _ = TopCandidates(n=5).apply([PastModel(data, scores), data])
    held = np.isin(data.split, (VALID, TEST))
    item = data.item.copy()
    item[held] = np.random.default_rng(1).permutation(item[held])
    other = dataclasses.replace(data, item=item)
    second, _ = TopCandidates(n=5).apply([PastModel(data, scores), other])
    assert first.equals(second) and asked[0] == asked[1]
    seen = {(u, i) for u, i, s in zip(data.user, data.item, data.split, strict=True) if s == TRAIN}
    offered = zip(data.users.index(first["user_id"].to_pylist()),
                  data.items.index(first["item_id"].to_pylist()), strict=True)  # fmt: skip
    assert not seen & set(offered)


def test_a_model_of_an_older_log_is_asked_in_its_own_positions():
    old = log(users="vu", items="edcba", rows=[("u", "a", TRAIN), ("v", "b", TRAIN)])
    rows_now = [("u", "a", TRAIN), ("u", "f", TRAIN), ("v", "b", TRAIN), ("w", "c", TRAIN)]
    now = log(users="uvw", items="abcdef", rows=rows_now)
    asked = {}

    def scores(users, histories):
        asked.update(users=users.tolist(), histories=[h.tolist() for h in histories])
        return np.tile(np.array([9.0, 1, 2, 3, 4, 5], np.float32), (len(users), 1))

    table, info = TopCandidates(n=2).apply([PastModel(old, scores), now])
    assert asked == {"users": [2, 1, 0], "histories": [[5], [4], [3]]}  # w is unknown, f is new
    assert rows(table)[:2] == [("u", 1, "b"), ("u", 2, "c")]  # of e d c b a the best is a, then b
    assert info["new_items"] == 1


def test_where_a_history_cut_is_declared_it_is_what_the_model_reads():
    data = log(rows=[("u", "a", HISTORY), ("u", "b", TRAIN), ("v", "c", TRAIN)])
    asked = []

    def scores(users, histories):
        asked.extend(h.tolist() for h in histories)
        return by_position(users, histories)

    table, _ = TopCandidates(n=2).apply([PastModel(data, scores), data])
    assert asked == [[1]] and rows(table) == [("u", 1, "c"), ("u", 2, "d")]


def test_rows_that_a_model_was_trained_on_and_that_are_held_out_now_are_counted():
    old = log(rows=[("u", "a", TRAIN), ("u", "b", TRAIN), ("u", "e", TRAIN), ("v", "b", TRAIN)])
    assert held_out_seen(old, LOG) == 1  # (u, b); (u, e) is no row any more
    assert TopCandidates().apply([PastModel(old, by_position), LOG])[1]["held_out_seen"] == 1


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="needs a trained model"):
        TopCandidates().apply([LOG])
    with pytest.raises(ValueError, match="at least 2"):
        TopCandidates(n=1)
