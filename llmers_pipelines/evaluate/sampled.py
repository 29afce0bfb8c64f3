"""Metrics against sampled negatives. Only to reproduce tables of papers; never a reported number.

Sampled metrics do not keep the order of models (Krichene and Rendle, KDD 2020), so names always
carry the sample: ``hr@10_100u`` is HR@10 against 100 uniform negatives, ``_100p`` against 100
drawn by popularity.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from ..data.training import TrainingData
from ..models.histories import history_before
from .places import count_above
from .predict import Ranker, rank_table, scored_blocks

Draw = Literal["uniform", "popularity"]


def sampled_rank_table(
    model: Ranker,
    data: TrainingData,
    split: int,
    *,
    negatives: int = 100,
    draw: Draw = "uniform",
    seed: int = 0,
) -> pa.Table:
    """Return a rank table in which each user's targets meet ``negatives`` drawn unseen items.

    Negatives are drawn without replacement from the items that are neither seen nor a target,
    uniformly or by training count. ``ranking.user_values`` of it gives labelled names.
    """
    full = rank_table(model, data, split)
    seen = history_before(data, split)
    user, item = full["user"].to_numpy(), full["item"].to_numpy()
    start = np.searchsorted(user, np.arange(data.n_users + 2))
    rank, candidates = np.empty(len(user)), np.empty(len(user), np.int64)
    weight = np.ones(data.n_items + 1) if draw == "uniform" else data.train_counts.astype(float)
    for users, scores in scored_blocks(model, data, seen, np.unique(user)):
        # One draw for a block would be faster, but of other negatives than those of stored figures.
        for u, row in zip(users, scores, strict=True):
            here = slice(start[u], start[u + 1])
            rng = np.random.default_rng([seed, int(u)])  # one stream per user: order-independent
            allowed = weight.copy()
            allowed[0] = 0
            allowed[seen.of(u)] = 0
            allowed[item[here]] = 0
            drawn = _without_replacement(allowed, negatives, rng)
            rank[here] = 1 + count_above(row[drawn], row[item[here]])
            candidates[here] = 1 + len(drawn)
    table = full.set_column(3, "rank", pa.array(rank))
    table = table.set_column(4, "n_candidates", pa.array(candidates))
    return table.replace_schema_metadata(
        {**(full.schema.metadata or {}), "sampled": f"{negatives}{draw[0]}"}
    )


def _without_replacement(weight: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return up to ``n`` positions of positive weight (Efraimidis and Spirakis keys)."""
    possible = np.flatnonzero(weight)
    if len(possible) <= n:
        return possible
    key = rng.exponential(size=len(possible)) / weight[possible]
    return possible[np.argpartition(key, n)[:n]]


def expected_hit(
    rank: np.ndarray | float, n_candidates: np.ndarray | int, negatives: int = 100, k: int = 10
) -> np.ndarray:
    """Return P(hit@k) of a target of full rank r against uniform negatives.

    sum over j < k of Hypergeom(j; n_candidates - 1, r - 1, negatives); half ranks (ties) are the
    mean of their neighbours.
    """
    from scipy.stats import hypergeom

    better = np.asarray(rank, np.float64) - 1
    others = np.asarray(n_candidates) - 1
    low, high = (
        hypergeom.cdf(k - 1, others, f(better).astype(np.int64), negatives)
        for f in (np.floor, np.ceil)
    )
    return (low + high) / 2
