from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.data.training import TEST
from llmers_pipelines.evaluate.predict import stamp_of
from llmers_pipelines.evaluate.ranking import user_values
from llmers_pipelines.evaluate.sampled import expected_hit, sampled_rank_table


def test_golden_table_of_true_ranks():
    ranks = np.array([11, 50, 200, 500, 1000, 2000])
    assert expected_hit(ranks, 10_001).round(3).tolist() == [1.0, 1.0, 1.0, 0.973, 0.452, 0.002]


def test_golden_reversal():
    """Full HR@10 prefers A (.3 against 0), sampled HR@10 prefers B (.3 against 1)."""
    a = expected_hit(np.array([1] * 3 + [3000] * 7), 10_001).mean()
    b = expected_hit(np.full(10, 60), 10_001).mean()
    assert a == pytest.approx(0.30, abs=0.005) and b == pytest.approx(1.0, abs=1e-6)


def test_half_ranks_lie_between_their_neighbours():
    low, middle, high = expected_hit(np.array([1000, 1000.5, 1001]), 10_001)
    assert middle == pytest.approx((low + high) / 2)


def test_the_mean_of_many_draws_matches_the_formula(make_log, fixed):
    n = 400
    data = make_log([(1, 1, 0), (1, 30, TEST)], 1, n)
    scores = np.zeros((2, n + 1))
    scores[1, 1:] = -np.arange(n)  # item 30 has rank 29 of 399: item 1 was seen
    model, hits = fixed(scores), []
    for seed in range(200):
        table = sampled_rank_table(model, data, TEST, negatives=100, seed=seed)
        hits.append(user_values(table, ["hr@8"]).means()["hr@8_100u"])
    p = float(expected_hit(29, n - 1, 100, 8))
    assert 0.2 < p < 0.8
    assert abs(np.mean(hits) - p) < 3 * np.sqrt(p * (1 - p) / 200)


def test_popularity_draws_prefer_popular_items(make_log, fixed):
    rows = [(u, 1 + u % 2, 0) for u in range(1, 41)] + [(41, 5, TEST)]
    rows += [(1, 3, 0), (1, 4, 0)]  # items 1 and 2: twenty times, 3 and 4: once
    data = make_log(rows, 41, 6)
    scores = np.zeros((42, 7))
    scores[41] = [0, 3, 2, -1, -2, 0, -3]
    above = [
        sampled_rank_table(fixed(scores), data, TEST, negatives=2, draw="popularity", seed=s)
        for s in range(60)
    ]
    ranks = [t["rank"][0].as_py() for t in above]
    assert np.mean(ranks) > 2.7  # nearly always the two popular items, both scored above
    assert stamp_of(above[0])["sampled"] == "2p"


def test_draws_exclude_seen_items_and_targets(random_log, fixed):
    data = random_log(30, 12, length=4)  # 12 - 5 seen - 1 target = 6 negatives in all
    scores = np.random.default_rng(0).standard_normal((31, 13))
    table = sampled_rank_table(fixed(scores), data, TEST, negatives=100)
    assert set(table["n_candidates"].to_pylist()) == {7}
    from llmers_pipelines.evaluate.predict import rank_table

    full = rank_table(fixed(scores), data, TEST)
    assert table["rank"].to_pylist() == full["rank"].to_pylist()
