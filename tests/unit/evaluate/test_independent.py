"""Ranks and metrics against other libraries on random cases, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from scipy.stats import rankdata

from llmers_pipelines.data.training import TEST
from llmers_pipelines.evaluate.predict import rank_table
from llmers_pipelines.evaluate.ranking import user_values
from llmers_pipelines.models.histories import history_before


@pytest.mark.parametrize("levels", [0, 3, 12])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_with_ties_are_the_mean_ranks_of_scipy(random_log, fixed, levels, seed):
    data = random_log(40, 30, seed=seed, targets=3)
    scores = np.random.default_rng(seed).random((41, 31)).astype(np.float32)
    scores = np.floor(levels * scores) if levels else scores
    table = rank_table(fixed(scores), data, TEST)
    seen = history_before(data, TEST)
    for user, item, rank in zip(*(table[c].to_numpy() for c in ("user", "item", "rank")),
                                strict=True):  # fmt: skip
        open_ = np.setdiff1d(np.arange(1, 31), seen.of(user))
        expected = rankdata(-scores[user, open_], method="average")[open_ == item]
        assert rank == expected[0]


@pytest.mark.parametrize("targets", [1, 4])
def test_metrics_are_those_of_trec_eval(random_log, fixed, targets):
    data = random_log(60, 50, seed=4, targets=targets)
    scores = np.random.default_rng(2).random((61, 51)).astype(np.float32)
    table = rank_table(fixed(scores), data, TEST)
    seen = history_before(data, TEST)
    users = range(1, 61)
    run = {
        str(u): {str(i): float(scores[u, i]) for i in range(1, 51) if i not in seen.of(u)}
        for u in users
    }
    relevant = {str(u): {} for u in users}
    for user, item in zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True):
        relevant[str(user)][str(item)] = 1
    names = {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "precision@10": "P_10",
             "hr@10": "success_10", "mrr@50": "recip_rank", "map@50": "map"}  # fmt: skip
    asked = {"ndcg_cut.10", "recall.10", "P.10", "success.10", "recip_rank", "map"}
    found = pytrec_eval.RelevanceEvaluator(relevant, asked).evaluate(run)
    ours = user_values(table, list(names))
    for metric, theirs in names.items():
        expected = [found[str(u)][theirs] for u in ours.users]
        np.testing.assert_allclose(ours.values[metric], expected, atol=1e-6, err_msg=metric)
