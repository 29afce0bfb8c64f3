from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.plan import Table
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.arms import control_inputs

NAMES = ("items", "more", "sim", "log", "users", "taught")
ITEMS, MORE, SIMILAR, LOG, USERS, TAUGHT = (Table(n) for n in NAMES)


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    ids = tuple(f"i{n}" for n in range(40))
    vectors = (
        rng.standard_normal((40, 3)).astype(np.float32)
        @ np.array([[3, 1, 0], [0, 1, 0], [0, 0, 0.1]], np.float32)
        + 5
    )
    mask = np.arange(40) < 35
    users = [f"u{n}" for n in range(8)]
    similar = pa.table({
        "user_id": np.repeat(users, 3), "rank": np.tile([1, 2, 3], 8),
        "other_id": [users[(u + k) % 8] for u in range(8) for k in (1, 2, 3)],
    })  # fmt: skip
    return {
        ITEMS: VectorTable("item", ids, vectors, mask),
        MORE: VectorTable("item", ids[::-1][:20], vectors[::-1][:20] * 2, mask[::-1][:20]),
        SIMILAR: similar,
        USERS: VectorTable("user", tuple(users), vectors[:8], mask[:8]),
        LOG: planted_rings(n_users=5, n_items=10).data,
    }


def test_permuted_moves_every_row_to_one_other_owner_in_all_tables(inputs):
    out = control_inputs(inputs, "permuted", seed=1)
    to = dict(zip(inputs[ITEMS].ids, out[ITEMS].ids, strict=True))
    assert sorted(to.values()) == sorted(to)
    assert all(a != b for a, b in to.items())
    assert out[ITEMS].vectors is inputs[ITEMS].vectors
    assert out[MORE].ids == tuple(to[i] for i in inputs[MORE].ids)
    users = dict(zip(inputs[USERS].ids, out[USERS].ids, strict=True))
    for column in ("user_id", "other_id"):
        expected = [users[u] for u in inputs[SIMILAR][column].to_pylist()]
        assert out[SIMILAR][column].to_pylist() == expected
    assert out[SIMILAR]["rank"].equals(inputs[SIMILAR]["rank"])
    assert out[LOG] is inputs[LOG]
    assert list(out) == list(inputs)


def test_gaussian_keeps_mean_covariance_mask_and_owners(inputs):
    draws = np.concatenate(
        [control_inputs(inputs, "gaussian", seed=s)[ITEMS].vectors[:35] for s in range(200)]
    )
    real = inputs[ITEMS].vectors[:35]
    np.testing.assert_allclose(draws.mean(0), real.mean(0), atol=0.15)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(real.T), atol=0.4)
    out = control_inputs(inputs, "gaussian", seed=0)[ITEMS]
    assert out.ids == inputs[ITEMS].ids
    assert np.array_equal(out.mask, inputs[ITEMS].mask)
    assert np.array_equal(out.vectors[35:], inputs[ITEMS].vectors[35:])
    assert abs(np.corrcoef(out.vectors[:35, 0], real[:, 0])[0, 1]) < 0.5


def test_gaussian_neighbours_are_random_others_without_repeats(inputs):
    out = control_inputs(inputs, "gaussian", seed=0)[SIMILAR]
    assert out["user_id"].equals(inputs[SIMILAR]["user_id"])
    rows = list(zip(out["user_id"].to_pylist(), out["other_id"].to_pylist(), strict=True))
    assert all(a != b for a, b in rows)
    assert len(set(rows)) == len(rows)
    assert not out["other_id"].equals(inputs[SIMILAR]["other_id"])


@pytest.mark.parametrize("arm", ["permuted", "gaussian"])
def test_arms_repeat_under_their_seed(inputs, arm):
    def state(seed):
        out = control_inputs(inputs, arm, seed=seed)
        return out[ITEMS].content_hash(), out[SIMILAR].to_pylist()

    assert state(1) == state(1)
    assert state(1) != state(2)


def test_wide_vectors_with_few_rows_have_a_gaussian_twin():
    table = VectorTable("item", ("a", "b", "c"), np.eye(3, 50, dtype=np.float32), np.ones(3, bool))
    out = control_inputs({ITEMS: table}, "gaussian", seed=0)[ITEMS].vectors
    assert out.shape == (3, 50)
    assert not out[:, 3:].any()  # no variance there, none added


@pytest.fixture
def rankings():
    rng = np.random.default_rng(3)
    rows = []
    for user in range(6):
        for position in range(1, 3 + user % 3):
            length = int(rng.integers(2, 5))
            items = rng.permutation(40)[:length]
            rows += [(f"u{user}", position, r, f"i{i}", float(r) / 7)
                     for r, i in enumerate(items, start=1)]  # fmt: skip
    rows = [rows[i] for i in rng.permutation(len(rows))]
    names = ("user_id", "position", "rank", "item_id", "distance")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def by_position(table):
    lists = {}
    for r in sorted(table.to_pylist(), key=lambda r: (r["user_id"], r["position"], r["rank"])):
        lists.setdefault((r["user_id"], r["position"]), []).append((r["item_id"], r["distance"]))
    return lists


def test_shuffled_deals_whole_rankings_to_other_positions_and_leaves_the_rest(inputs, rankings):
    inputs = {**inputs, TAUGHT: rankings}
    out = control_inputs(inputs, "shuffled", seed=1)
    before, after = by_position(rankings), by_position(out[TAUGHT])
    assert set(after) == set(before)
    assert all(after[k] != before[k] for k in before)
    assert sorted(map(str, after.values())) == sorted(map(str, before.values()))
    assert out[TAUGHT].schema.equals(rankings.schema)
    assert all(out[n] is inputs[n] for n in (ITEMS, MORE, SIMILAR, USERS, LOG))
    again = control_inputs(inputs, "shuffled", seed=1)[TAUGHT]
    assert again.equals(out[TAUGHT])
    assert not control_inputs(inputs, "shuffled", seed=2)[TAUGHT].equals(out[TAUGHT])


def test_permuted_rankings_name_other_items_at_every_position(inputs, rankings):
    out = control_inputs({**inputs, TAUGHT: rankings}, "permuted", seed=1)
    to = dict(zip(inputs[ITEMS].ids, out[ITEMS].ids, strict=True))
    assert out[TAUGHT]["item_id"].to_pylist() == [to[i] for i in rankings["item_id"].to_pylist()]
    for column in ("user_id", "position", "rank", "distance"):
        assert out[TAUGHT][column].equals(rankings[column])


def test_gaussian_rankings_name_random_items_none_twice(inputs, rankings):
    out = control_inputs({**inputs, TAUGHT: rankings}, "gaussian", seed=1)[TAUGHT]
    assert all(len(dict(v)) == len(v) for v in by_position(out).values())
    assert not out["item_id"].equals(rankings["item_id"])
    assert out["position"].equals(rankings["position"])


def test_unknown_arms_and_texts_are_refused(inputs):
    with pytest.raises(ValueError, match="unknown control arm 'reversed'"):
        control_inputs(inputs, "reversed", seed=0)
    with pytest.raises(ValueError, match="'shuffled' is for methods with rankings"):
        control_inputs(inputs, "shuffled", seed=0)
    texts = {ITEMS: pa.table({"item_id": ["a"], "text": ["x"]})}
    with pytest.raises(ValueError, match="no gaussian counterpart; use the control 'permuted'"):
        control_inputs(texts, "gaussian", seed=0)


@pytest.fixture
def augmented():
    data = planted_rings(n_users=30, n_items=20).data
    liked = [[data.items.ids[u % 20], data.items.ids[(u + 7) % 20]] for u in range(30)]
    disliked = [[data.items.ids[(u + 3) % 20], data.items.ids[(u + 9) % 20]] for u in range(30)]
    liked[4] = disliked[4] = None
    table = pa.table({"user_id": data.users.ids, "liked": liked, "disliked": disliked})
    vectors = np.eye(20, 4, dtype=np.float32)
    texts = VectorTable("item", data.items.ids, vectors, np.ones(20, bool))
    return data, {USERS: table, ITEMS: texts}


@pytest.mark.parametrize("arm", ["random_pairs", "popular_pairs", "gaussian"])
def test_drawn_pairs_are_as_many_and_of_items_that_the_user_did_not_train_on(augmented, arm):
    data, inputs = augmented
    out = control_inputs(inputs, arm, seed=3, log=data)
    table = out[USERS]
    assert (out[ITEMS] is inputs[ITEMS]) == (arm != "gaussian")
    assert table["user_id"].equals(inputs[USERS]["user_id"])
    assert not table["liked"].equals(inputs[USERS]["liked"])
    for user, (liked, disliked) in enumerate(
        zip(table["liked"].to_pylist(), table["disliked"].to_pylist(), strict=True), start=1
    ):
        if user == 5:
            assert liked is None and disliked is None
            continue
        drawn = data.items.index([*liked, *disliked]).tolist()
        assert len(liked) == len(disliked) == 2 and len(set(drawn)) == 4
        assert not set(drawn) & set(data.item[(data.user == user) & (data.split == 0)].tolist())


def test_popular_pairs_follow_the_training_counts(augmented):
    data, inputs = augmented
    few = data.user <= 3  # one item has nearly all rows, and none of the first three users met it
    item = np.where(few, np.maximum(data.item, 2), np.where(data.split == 0, 1, data.item))
    data = dataclasses.replace(data, item=item)

    def share(arm):
        drawn = []
        for seed in range(40):
            table = control_inputs(inputs, arm, seed=seed, log=data)[USERS]
            drawn += [liked[0] == data.items.ids[0] for liked in table["liked"][:3].to_pylist()]
        return np.mean(drawn)

    assert share("popular_pairs") > 0.6 > 0.2 > share("random_pairs")


def test_permuted_pairs_go_to_other_owners(augmented):
    data, inputs = augmented
    out = control_inputs(inputs, "permuted", seed=0, log=data)[USERS]
    assert out["liked"].equals(inputs[USERS]["liked"])
    mine, theirs = inputs[USERS]["user_id"].to_pylist(), out["user_id"].to_pylist()
    assert sorted(mine) == sorted(theirs) and all(a != b for a, b in zip(mine, theirs, strict=True))


def test_pairs_cannot_be_drawn_without_a_log(augmented):
    with pytest.raises(ValueError, match="give it as `log`"):
        control_inputs(augmented[1], "random_pairs", seed=0)
