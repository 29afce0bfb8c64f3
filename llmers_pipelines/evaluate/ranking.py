"""Ranking metrics from rank tables: one value per user first, means second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from .predict import stamp_of

NAMES = ("ndcg", "hr", "recall", "mrr", "map")
CUTS = (10, 5, 20)
METRICS = tuple(f"{name}@{k}" for k in CUTS for name in NAMES)
PRIMARY = "ndcg@10"


@dataclass(frozen=True)
class UserValues:
    """Metric vectors of M users: users int64[M], sorted; targets int64[M]; values float64[M]."""

    users: np.ndarray
    targets: np.ndarray
    values: dict[str, np.ndarray]

    def means(self) -> dict[str, float | None]:
        """Return the mean over users per metric; None (never NaN) when there is no user."""
        return {m: float(v.mean()) if len(v) else None for m, v in self.values.items()}


def user_values(table: pa.Table, metrics: Sequence[str] = METRICS) -> UserValues:
    """Return per-user metrics of a rank table; users without a target are not in it.

    With r the ranks of a user's T targets and k the cut: HR 1[min r <= k], recall |r <= k| / T,
    precision |r <= k| / k, MRR 1[min r <= k] / min r, NDCG the sum of 1[r <= k] / log2(r + 1) over
    the same sum for ranks 1..min(k, T), MAP the sum of 1[r <= k] (targets up to r) / r over
    min(k, T). With one target HR equals recall and MAP equals MRR. Tied ranks count half
    throughout. Tables of sampled ranks give names that say so (``hr@10_100u``).
    """
    user, rank = table["user"].to_numpy(), table["rank"].to_numpy()
    order = np.lexsort((rank, user))
    user, rank = user[order], rank[order]
    users, start, count = np.unique(user, return_index=True, return_counts=True)
    suffix = stamp_of(table).get("sampled", "")
    place = _place(rank, start, count)
    values = {}
    for metric in metrics:
        name, k = parse(metric)
        values[f"{metric}_{suffix}" if suffix else metric] = (
            _one(name, k, rank, place, start, count) if len(users) else np.zeros(0)
        )
    return UserValues(users, count, values)


def default_metrics(table: pa.Table) -> tuple[str, ...]:
    """Return the metrics that say different things: with one target per user, HR and MRR stand for
    recall and MAP, which would only repeat them in tables and families of tests."""
    one_each = len(table["user"].unique()) == table.num_rows
    return tuple(m for m in METRICS if not (one_each and parse(m)[0] in ("recall", "map")))


def parse(metric: str) -> tuple[str, int]:
    """Return ``("ndcg", 10)`` for ``"ndcg@10"``."""
    name, _, cut = metric.partition("@")
    if name not in (*NAMES, "precision") or not cut.isdigit() or int(cut) < 1:
        raise ValueError(
            f"unknown ranking metric {metric!r}: expected one of {', '.join(NAMES)}, precision "
            "followed by @ and a cut, such as ndcg@10"
        )
    return name, int(cut)


def _one(
    name: str, k: int, rank: np.ndarray, place: np.ndarray, start: np.ndarray, count: np.ndarray
) -> np.ndarray:
    hit = rank <= k
    best = rank[start]
    match name:
        case "hr":
            return (best <= k).astype(np.float64)
        case "mrr":
            return np.where(best <= k, 1 / best, 0.0)
        case "recall":
            return np.add.reduceat(hit, start, dtype=np.float64) / count
        case "precision":
            return np.add.reduceat(hit, start, dtype=np.float64) / k
        case "map":
            return np.add.reduceat(np.where(hit, place / rank, 0.0), start) / np.minimum(k, count)
    gain = np.add.reduceat(np.where(hit, 1 / np.log2(rank + 1), 0.0), start)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return gain / ideal[np.minimum(k, count) - 1]


def _place(rank: np.ndarray, start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return each target's rank among the targets of its user, ties counted half."""
    position = np.arange(len(rank)) - np.repeat(start, count) + 1.0
    owner = np.repeat(np.arange(len(start)), count)
    new = np.ones(len(rank), bool)
    new[1:] = (owner[1:] != owner[:-1]) | (rank[1:] != rank[:-1])
    group = np.cumsum(new) - 1
    return (np.bincount(group, position) / np.bincount(group))[group] if len(rank) else position
