from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID
from llmers_pipelines.evaluate import predict
from llmers_pipelines.evaluate.places import count_above
from llmers_pipelines.evaluate.predict import (
    ctr_table,
    rank_table,
    stamp_of,
    top_k_lists,
)
from llmers_pipelines.evaluate.ranking import user_values
from llmers_pipelines.models.counting import FEWEST
from llmers_pipelines.models.histories import history_before


def naive_ranks(scores, data, split):
    """The definition, target by target."""
    allowed = {VALID: (TRAIN, HISTORY), TEST: (TRAIN, HISTORY, VALID)}[split]
    out = {}
    for u in range(1, data.n_users + 1):
        mine = data.user == u
        seen = set(data.item[mine & np.isin(data.split, allowed)].tolist())
        for t in data.item[mine & (data.split == split)].tolist():
            others = [j for j in range(1, data.n_items + 1) if j not in seen and j != t]
            s = scores[u]
            rank = 1 + sum(s[j] > s[t] for j in others) + 0.5 * sum(s[j] == s[t] for j in others)
            out[u, t] = (rank, len(others) + 1)
    return out


def test_ties_count_half(make_log, fixed):
    data = make_log([(1, 1, TEST)], 1, 4)
    table = rank_table(fixed([[0] * 5, [9, 1, 1, 1, 0]]), data, TEST)
    assert table["rank"].to_pylist() == [2.0]
    assert table["n_candidates"].to_pylist() == [4]


@pytest.mark.parametrize("split", [VALID, TEST])
@pytest.mark.parametrize("targets", [1, 3])
def test_ranks_equal_the_definition(random_log, fixed, split, targets):
    data = random_log(40, 30, targets=targets)
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, (41, 31)).astype(np.float32)  # many ties
    table = rank_table(fixed(scores), data, split)
    expected = naive_ranks(scores, data, split)
    assert len(expected) == table.num_rows
    for row in table.to_pylist():
        assert (row["rank"], row["n_candidates"]) == expected[row["user"], row["item"]]
        assert row["user_id"] == f"u{row['user']}"


def test_history_is_train_at_validation_and_train_plus_validation_at_test(make_log, fixed):
    rows = [(1, 1, HISTORY), (1, 2, TRAIN), (1, 3, TRAIN), (1, 4, VALID), (1, 5, TEST)]
    data = make_log(rows, 1, 6)
    for split, expected in ((VALID, [1, 2, 3]), (TEST, [1, 2, 3, 4])):
        model = fixed(np.zeros((2, 7)))
        table = rank_table(model, data, split)
        assert model.calls[0][1][0].tolist() == expected
        assert table["n_candidates"].to_pylist() == [6 - len(expected)]
        assert stamp_of(table)["split"] == ("valid" if split == VALID else "test")


def test_padding_is_never_ranked(random_log, fixed):
    data = random_log(10, 20)
    scores = np.random.default_rng(0).standard_normal((11, 21))
    high, low = scores.copy(), scores.copy()
    high[:, 0], low[:, 0] = 1e9, np.nan  # what stands in column 0 must not matter
    a, b = (rank_table(fixed(s), data, TEST) for s in (high, low))
    assert a.equals(b)


def test_target_is_never_masked_even_when_it_was_seen(make_log, fixed):
    data = make_log([(1, 1, TRAIN), (1, 2, TRAIN), (1, 1, TEST), (2, 3, TRAIN), (2, 1, TEST)], 2, 4)
    model = fixed([[0] * 5, [0, 3, 9, 1, 2], [0, 3, 9, 1, 2]])
    dropped = rank_table(model, data, TEST)
    assert dropped["user"].to_pylist() == [2]
    assert stamp_of(dropped)["repeated_targets"] == "1"
    kept = rank_table(model, data, TEST, repeats="keep")
    assert kept["rank"].to_pylist() == [1.0, 2.0]
    assert kept["n_candidates"].to_pylist() == [3, 3]


def test_blocked_and_unblocked_scoring_agree(random_log, fixed):
    data = random_log(70, 50)
    model = fixed(np.random.default_rng(3).standard_normal((71, 51)))
    whole = rank_table(model, data, TEST)
    assert max(len(users) for users, _ in model.calls) == 70
    for block in (1, 7, 64):
        model.calls.clear()
        assert rank_table(model, data, TEST, block=block).equals(whole)
        assert max(len(users) for users, _ in model.calls) == max(block, FEWEST)


def test_permuting_users_changes_nothing(make_log, fixed):
    rng = np.random.default_rng(5)
    rows, moved = [], []
    order = rng.permutation(20) + 1
    for u in range(1, 21):
        items = rng.permutation(15)[:4] + 1
        for i, s in zip(items.tolist(), (TRAIN, TRAIN, VALID, TEST), strict=True):
            rows.append((u, i, s))
            moved.append((int(order[u - 1]), i, s))
    scores = rng.standard_normal((21, 16)).astype(np.float32)
    shuffled = scores.copy()
    shuffled[order] = scores[1:]
    a = user_values(rank_table(fixed(scores), make_log(rows, 20, 15), TEST)).means()
    b = user_values(rank_table(fixed(shuffled), make_log(moved, 20, 15), TEST)).means()
    assert a == pytest.approx(b)


def test_constant_scores_are_chance_and_never_first(random_log, fixed):
    data = random_log(200, 300)
    table = rank_table(fixed(np.ones((201, 301))), data, TEST)
    hit = user_values(table, ["hr@10"]).means()["hr@10"]
    assert abs(hit - 10 / 300) < 0.04 and hit < 1
    assert set(table["rank"].to_pylist()) == {(294 + 1) / 2}


def test_nan_scores_raise_and_name_the_user(random_log, fixed):
    data = random_log(5, 20)
    scores = np.zeros((6, 21))
    scores[3, 7] = np.nan
    with pytest.raises(ValueError, match="NaN for 1 of 5 users, first 'u3'"):
        rank_table(fixed(scores), data, TEST)


def test_wrong_shape_and_train_split_raise(random_log, fixed):
    data = random_log(5, 20)
    with pytest.raises(ValueError, match=r"expected \(5, 21\)"):
        rank_table(fixed(np.zeros((6, 20))), data, TEST)
    with pytest.raises(ValueError, match="'train'"):
        rank_table(fixed(np.zeros((6, 21))), data, TRAIN)


def test_k_plus_one_candidates_are_all_hits(random_log, fixed):
    data = random_log(30, 12, length=0)  # test: 12 items minus the validation item = 11 = k + 1
    table = rank_table(fixed(np.random.default_rng(0).standard_normal((31, 13))), data, TEST)
    means = user_values(table, ["hr@10", "hr@11"]).means()
    assert means["hr@11"] == 1 and means["hr@10"] < 1


def test_only_restricts_candidates_and_targets(make_log, fixed):
    data = make_log([(1, 1, TRAIN), (1, 2, TRAIN), (1, 3, TEST), (2, 2, TRAIN), (2, 4, TEST)], 2, 6)
    cold = np.array([False, True, False, True, False, True, True])
    scores = np.tile(np.array([0, 9, 8, 1, 7, 5, 0.5]), (3, 1))
    table = rank_table(fixed(scores), data, TEST, only=cold)
    assert table["user"].to_pylist() == [1]  # the other target is warm
    assert table["n_candidates"].to_pylist() == [3]  # items 3, 5, 6; item 1 was seen
    assert table["rank"].to_pylist() == [2.0]
    with pytest.raises(ValueError, match="only has shape"):
        rank_table(fixed(scores), data, TEST, only=cold[1:])


def test_one_item_held_out_twice_is_one_target(make_log, fixed):
    data = make_log([(1, 1, TRAIN), (1, 2, TEST), (1, 2, TEST)], 1, 3)
    assert rank_table(fixed(np.zeros((2, 4))), data, TEST).num_rows == 1


def test_both_ways_of_counting_agree():
    values = np.random.default_rng(0).integers(0, 9, 200).astype(np.float32)
    many = count_above(values, values[:20])
    assert [count_above(values, values[i : i + 1]) for i in range(20)] == many.tolist()


def test_ctr_table_keeps_the_rows_of_the_log(make_log, clicks):
    rows = [(1, 1, TRAIN, 1), (1, 2, TEST, 0), (2, 3, TEST, 1), (2, 3, TRAIN, 0)]
    data = make_log(rows, 2, 3, task="ctr")
    table = ctr_table(clicks([0.1, 0.2, 0.3, 0.4]), data, TEST)
    assert table["row"].to_pylist() == [1, 2]
    assert table["label"].to_pylist() == [0.0, 1.0]
    assert table["p"].to_pylist() == pytest.approx([0.2, 0.3])
    assert table["user_id"].to_pylist() == ["u1", "u2"]
    for bad in (np.nan, 1.5, -0.1):
        with pytest.raises(ValueError, match=r"expected probabilities in \[0, 1\]"):
            ctr_table(clicks([0, bad, 0.3, 0]), data, TEST)


def test_seen_items_are_never_in_the_lists(random_log, fixed):
    data = random_log(60, 25)
    scores = np.random.default_rng(0).standard_normal((61, 26))
    top = top_k_lists(fixed(scores), data, 10)
    for u, items in zip(top.users, top.items, strict=True):
        mine = data.user == u
        seen = set(data.item[mine & (data.split != TEST)].tolist())
        assert not seen & set(items.tolist()) and 0 not in items
        rest = [i for i in range(1, 26) if i not in seen]
        assert items.tolist() == sorted(rest, key=lambda i: -scores[u, i])[:10]


def test_lists_break_ties_by_position_and_pad_with_zero(make_log, fixed):
    data = make_log([(1, 2, TRAIN), (1, 4, TEST)], 1, 4)
    assert top_k_lists(fixed(np.zeros((2, 5))), data, 2).items.tolist() == [[1, 3]]
    assert top_k_lists(fixed(np.zeros((2, 5))), data, 5).items.tolist() == [[1, 3, 4, 0, 0]]


def lists_one_by_one(scores, data, users, k):
    """User by user: what has not been seen, the k-th score and all that reach it, sorted."""
    seen, lists = history_before(data, TEST), np.zeros((len(users), k), np.int64)
    for u, out in zip(users, lists, strict=True):
        allowed = np.ones(data.n_items + 1, bool)
        allowed[0] = False
        allowed[seen.of(u)] = False
        ids = np.flatnonzero(allowed)
        values = scores[u][ids]
        if len(ids) > k:
            best = values >= np.partition(values, len(ids) - k)[len(ids) - k]
            ids, values = ids[best], values[best]
        ids = ids[np.argsort(-values, kind="stable")][:k]
        out[: len(ids)] = ids
    return lists


@pytest.mark.parametrize("k", [1, 3, 10, 40, 700])
@pytest.mark.parametrize("levels", [1, 2, 7, 60, 10**6])
def test_lists_of_blocks_are_those_of_single_users(random_log, fixed, monkeypatch, levels, k):
    """``levels``: how many different scores there are, so how many tie; some are infinite."""
    rng = np.random.default_rng(levels)
    data = random_log(150, 600, length=20)
    scores = (rng.integers(0, levels, (151, 601)) - levels // 2).astype(np.float32)
    scores[rng.random(scores.shape) < 0.01] = -0.0  # equal to 0
    scores[rng.random(scores.shape) < 0.002] = np.inf
    scores[rng.random(scores.shape) < 0.002] = -np.inf  # still before what has been seen
    scores[:10, rng.random(601) < 0.97] = -np.inf
    scores[10:30, rng.random(601) < 0.98] = 0  # few neighbours, all else alike
    scores[:, 0] = np.inf
    users = np.unique(data.user)
    expected = lists_one_by_one(scores, data, users, k)
    assert np.array_equal(top_k_lists(fixed(scores), data, k).items, expected)
    monkeypatch.setattr(predict, "BLOCK_BYTES", 4 * 601 * 7)  # lists of 7 users at a time
    assert np.array_equal(top_k_lists(fixed(scores), data, k, block=64).items, expected)


def test_lists_leave_the_scores_of_a_model_alone(make_log):
    data = make_log([(1, 2, TRAIN), (1, 2, TRAIN), (1, 4, TEST)], 1, 4)

    class Kept:
        table = np.array([[9.0, 1, 5, 3, 2]])

        def scores(self, users, histories):
            return np.broadcast_to(self.table, (len(users), 5))  # may not be written to

    assert top_k_lists(Kept(), data, 3).items.tolist() == [[3, 4, 1]]
    assert Kept.table.tolist() == [[9, 1, 5, 3, 2]]
