from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.evaluate.ranking import METRICS, default_metrics, user_values


def table(user, rank, **stamp):
    metadata = stamp or None
    return pa.table({"user": user, "rank": np.asarray(rank, float)}, metadata=metadata)


def test_golden_values_of_one_target():
    means = user_values(table([1, 2, 3, 4], [1, 3, 10, 11])).means()
    assert means["hr@10"] == 0.75
    assert means["ndcg@10"] == pytest.approx(0.447266, abs=1e-6)
    assert means["mrr@10"] == pytest.approx(0.358333, abs=1e-6)
    assert means["recall@10"] == means["hr@10"] and means["map@10"] == means["mrr@10"]


def test_many_targets_by_hand():
    values = user_values(
        table([7, 7, 7], [2, 30, 4]), ["recall@5", "ndcg@5", "map@5", "mrr@5", "precision@5"]
    ).values
    assert values["recall@5"] == pytest.approx([2 / 3])
    assert values["precision@5"] == pytest.approx([2 / 5])
    assert values["map@5"] == pytest.approx([(1 / 2 + 2 / 4) / 3])
    assert values["mrr@5"] == pytest.approx([0.5])
    dcg = 1 / np.log2(3) + 1 / np.log2(5)
    assert values["ndcg@5"] == pytest.approx([dcg / (1 + 1 / np.log2(3) + 1 / np.log2(4))])


def test_two_tied_targets_have_full_precision():
    assert user_values(table([1, 1], [1.5, 1.5]), ["map@5"]).values["map@5"] == pytest.approx([1.0])


def test_row_order_does_not_matter_and_users_are_sorted():
    rng = np.random.default_rng(0)
    user, rank = rng.integers(1, 9, 50), rng.integers(1, 30, 50)
    a = user_values(table(user, rank))
    shuffled = rng.permutation(50)
    b = user_values(table(user[shuffled], rank[shuffled]))
    assert a.users.tolist() == sorted(set(user.tolist())) == b.users.tolist()
    assert a.targets.tolist() == np.bincount(user)[a.users].tolist()
    assert all(np.allclose(a.values[m], b.values[m]) for m in METRICS)


def test_no_users_give_none_not_nan():
    values = user_values(table(np.zeros(0, np.int64), []))
    assert set(values.means().values()) == {None}


def test_one_target_per_user_needs_no_recall_and_no_map():
    one, many = default_metrics(table([1, 2], [1, 1])), default_metrics(table([1, 1], [1, 2]))
    assert many == METRICS and len(one) == 9
    values = user_values(table([1, 2, 3], [1, 7, 30])).values
    for metric in set(METRICS) - set(one):
        twin = metric.replace("recall", "hr").replace("map", "mrr")
        assert np.array_equal(values[metric], values[twin])


def test_sampled_tables_give_labelled_names():
    assert set(user_values(table([1], [3], sampled="100u"), ["hr@10"]).values) == {"hr@10_100u"}


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "auc@10", "hr@x"])
def test_unknown_metrics_raise(name):
    with pytest.raises(ValueError, match="unknown ranking metric"):
        user_values(table([1], [1]), [name])


def test_agrees_with_torchmetrics_on_random_data():
    import torch
    from torchmetrics.functional import retrieval as peer

    rng = np.random.default_rng(4)
    user, rank, expected = [], [], {m: [] for m in METRICS}
    for u in range(25):
        n, t = int(rng.integers(25, 60)), int(rng.integers(1, 8))
        scores, relevant = rng.permutation(n).astype(np.float32), np.zeros(n, bool)
        relevant[rng.choice(n, t, replace=False)] = True
        place = np.empty(n)
        place[np.argsort(-scores)] = np.arange(1, n + 1)
        user += [u] * t
        rank += place[relevant].tolist()
        s, r = torch.from_numpy(scores), torch.from_numpy(relevant)
        for k in (5, 10, 20):
            expected[f"hr@{k}"].append(float(peer.retrieval_hit_rate(s, r, top_k=k)))
            expected[f"recall@{k}"].append(float(peer.retrieval_recall(s, r, top_k=k)))
            expected[f"mrr@{k}"].append(float(peer.retrieval_reciprocal_rank(s, r, top_k=k)))
            ndcg = peer.retrieval_normalized_dcg(s, r.long(), top_k=k)
            expected[f"ndcg@{k}"].append(float(ndcg))
            hits = np.sort(place[relevant])
            ap = sum((i + 1) / h for i, h in enumerate(hits) if h <= k) / min(k, t)
            expected[f"map@{k}"].append(ap)
    got = user_values(table(user, rank)).values
    for metric, values in expected.items():
        assert np.allclose(got[metric], values, atol=1e-6), metric


def test_uncut_map_is_average_precision_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    scores, relevant = rng.permutation(40).astype(float), rng.random(40) < 0.2
    place = np.empty(40)
    place[np.argsort(-scores)] = np.arange(1, 41)
    ours = user_values(table([1] * relevant.sum(), place[relevant]), ["map@40"]).means()["map@40"]
    assert ours == pytest.approx(average_precision_score(relevant, scores))
