"""Bootstrap over users: resampled sums, means and AUC, paired across models by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CELLS = 1 << 21  # resample x user weights held at once
LANES = 64  # weights of one row that go through the caches together
PAIRED_USERS = 2048  # 32 MiB of pairs per score vector
PAIRED_SHARE = 128  # user pairs per row from which on running sums are cheaper


def resampled_sums(
    values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Return float64[R, K]: column sums of ``values`` float64[M, K] over M users drawn with
    replacement, R times.

    All columns share the draws, so differences between columns are paired. Users whose row is all
    zero add nothing: only how many draws fall on the others is drawn (a binomial), then on whom.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values per user contain NaN or infinity; a metric must be finite")
    out = np.zeros((resamples, values.shape[1]))
    live = values[values.any(axis=1)]
    if not len(live):
        return out
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // len(live))
    for low in range(0, resamples, step):
        n = min(step, resamples - low)
        drawn = rng.binomial(len(values), len(live) / len(values), size=n)
        out[low : low + n] = _weights(drawn, len(live), rng) @ live
    return out


def resampled_auc(
    user: np.ndarray,
    label: np.ndarray,
    scores: Sequence[np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Return float64[R, A]: AUC of each of A score vectors on rows of users drawn with replacement.

    A user drawn w times brings each row with weight w: AUC = sum over positives i and negatives j
    of w_i w_j (1[s_i > s_j] + 1[s_i = s_j] / 2) / (W+ W-), exact. With few users the sum is a
    quadratic form in their weights, whose matrix is made once; with many, one running sum per
    resample, in time linear in rows. NaN where a resample lacks a class.
    """
    users, owner = np.unique(user, return_inverse=True)
    positive = label > 0
    flip = positive.sum() < (~positive).sum()  # the running sum goes over the rarer class
    few, many = (positive, ~positive) if flip else (~positive, positive)
    plans = [_Pairs.of(np.asarray(s), owner, few, many) for s in scores]
    out = np.full((resamples, len(plans)), np.nan)
    if not few.any() or not many.any():
        return out
    rng, n = np.random.default_rng(seed), len(users)
    few_rows, many_rows = (np.bincount(owner[rows], minlength=n) for rows in (few, many))
    paired = n <= min(PAIRED_USERS, int(np.sqrt(PAIRED_SHARE * len(label))))
    matrices = [plan.matrix(n) for plan in plans] if paired else []
    step = max(1, CELLS // n) if paired else LANES
    for low in range(0, resamples, step):
        c = min(step, resamples - low)
        weight = _weights(np.full(c, n), n, rng)  # c, U
        mass = (weight @ few_rows) * (weight @ many_rows)
        lanes = None if paired else np.ascontiguousarray(weight.T)
        for a, plan in enumerate(plans):
            if lanes is None:
                wins = np.einsum("cu,cu->c", weight @ matrices[a], weight)
            else:
                middle = plan.below(lanes)
                wins = np.einsum("rc,rc->c", middle, lanes.take(plan.many_owner, axis=0))
            share = np.divide(wins, mass, out=np.full(c, np.nan), where=mass > 0)
            out[low : low + c, a] = 1 - share if flip else share
    return out


def interval(draws: np.ndarray, level: float = 0.95) -> tuple[float | None, float | None]:
    """Return the percentile interval; (None, None) when over 1 % of the draws are undefined."""
    known = draws[np.isfinite(draws)]
    if not len(draws) or len(known) < 0.99 * len(draws):
        return None, None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def two_sided_p(draws: np.ndarray) -> float | None:
    """Return twice the smaller share of draws on one side of zero, never below 2 / (R + 1)."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return None
    side = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (side + 1) / (len(known) + 1)))


def _weights(drawn: np.ndarray, users: int, rng: np.random.Generator) -> np.ndarray:
    """Return float64[C, users]: how often each user occurs when ``drawn[c]`` users are drawn."""
    cell = rng.integers(users, size=drawn.sum())
    cell += np.repeat(np.arange(len(drawn)) * users, drawn)
    counts = np.bincount(cell, minlength=len(drawn) * users)
    return counts.reshape(len(drawn), users).astype(np.float64)


@dataclass(frozen=True)
class _Pairs:
    """Rows of the rarer class in order of score; rows of the other by user, with how many of the
    rarer class lie below (``left``), and below or equal (``right``, None without ties)."""

    few_owner: np.ndarray
    many_owner: np.ndarray
    left: np.ndarray
    right: np.ndarray | None

    @classmethod
    def of(
        cls, score: np.ndarray, owner: np.ndarray, few: np.ndarray, many: np.ndarray
    ) -> _Pairs:
        order = np.argsort(score[few], kind="stable")
        by_user = np.argsort(owner[many], kind="stable")
        ordered, other = score[few][order], score[many][by_user]
        left, right = (ordered.searchsorted(other, side) for side in ("left", "right"))
        ties = None if np.array_equal(left, right) else right
        return cls(owner[few][order], owner[many][by_user], left, ties)

    def below(self, weight: np.ndarray) -> np.ndarray:
        """Return float64[rows of the other class, C]: weight below each, for weights [U, C]."""
        total = np.zeros((len(self.few_owner) + 1, weight.shape[1]))
        np.cumsum(weight.take(self.few_owner, axis=0), axis=0, out=total[1:])
        middle = total.take(self.left, axis=0)
        return middle if self.right is None else 0.5 * (middle + total.take(self.right, axis=0))

    def matrix(self, n: int) -> np.ndarray:
        """Return float64[U, U]: pairs won by rows of user u over the rarer class of user v."""
        won = np.zeros((n, n))
        present, start = np.unique(self.many_owner, return_index=True)
        for low in range(0, n, LANES):
            one = np.eye(n, min(LANES, n - low), -low)
            won[present, low : low + LANES] = np.add.reduceat(self.below(one), start, axis=0)
        return won
