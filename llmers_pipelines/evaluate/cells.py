"""Aligned evaluation tables of several arms and seeds, and their values on one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from . import ctr, ranking, rating
from .bootstrap import resampled_auc, resampled_sums, two_sided_p
from .predict import stamp_of
from .significance import Gain, SeedSpread, gain_from_draws, mcnemar, paired_t, seed_spread

Seed = int | None  # None: the arm has no randomness, its one run stands for every seed
Cells = Mapping[tuple[str, Seed], pa.Table]


@dataclass(frozen=True)
class Aligned:
    """Tables with equal rows in equal order: ``arms[arm][seed]``."""

    kind: str  # "rank", "ctr" or "rating"
    arms: dict[str, dict[Seed, pa.Table]]

    @property
    def rows(self) -> pa.Table:
        return next(iter(next(iter(self.arms.values())).values()))

    def usual(self) -> tuple[str, tuple[str, ...]]:
        """Return the primary metric and all metrics of tables of this kind."""
        if self.kind == "rank":
            return ranking.PRIMARY, ranking.default_metrics(self.rows)
        if self.kind == "ctr":
            return ctr.usual(self.rows)
        return rating.PRIMARY, rating.METRICS


@dataclass(frozen=True)
class Card:
    """Values on one slice. ``points[arm][metric][seed]``; ``draws[arm][metric]`` float64[R], the
    mean over seeds in each resample of users; ``vectors[arm][metric]`` float64[M], the mean over
    seeds per user, where the metric is a mean over users."""

    users: int
    points: dict[str, dict[str, dict[Seed, float | None]]]
    draws: dict[str, dict[str, np.ndarray]]
    vectors: dict[str, dict[str, np.ndarray]]

    def value(self, arm: str, metric: str) -> float | None:
        """Return the mean over seeds; None when one of them is not defined."""
        values = self.points[arm].get(metric, {}).values()
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known and len(known) == len(values) else None

    def seed_sd(self, arm: str, metric: str) -> float | None:
        values = [v for v in self.points[arm].get(metric, {}).values() if v is not None]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def gain(self, metric: str, base: str, other: str) -> Gain | None:
        """Return ``other`` over ``base``; None when either is not defined on this slice."""
        low, high = self.value(base, metric), self.value(other, metric)
        if low is None or high is None:
            return None
        lower = metric in ctr.LOWER_IS_BETTER | rating.LOWER_IS_BETTER
        if metric not in self.draws[base]:
            return Gain(metric, low, high, None, None, users=self.users, lower_is_better=lower)
        draws = self.draws[base][metric], self.draws[other][metric]
        p, test = self._p(metric, base, other)
        return gain_from_draws(
            metric, low, high, *draws, p=p, test=test, users=self.users, lower_is_better=lower
        )

    def _p(self, metric: str, base: str, other: str) -> tuple[float | None, str]:
        if metric not in self.vectors[base]:
            return two_sided_p(self.draws[other][metric] - self.draws[base][metric]), "bootstrap"
        a, b = self.vectors[base][metric], self.vectors[other][metric]
        one_seed = max(len(self.points[base][metric]), len(self.points[other][metric])) == 1
        if metric.startswith("hr@") and one_seed:
            return mcnemar(a, b), "exact McNemar"
        return paired_t(b - a).p, "paired t"

    def spread(self, metric: str, base: str, other: str) -> SeedSpread:
        """Return the spread of the difference over the seeds that both arms have."""
        a, b = self.points[base].get(metric, {}), self.points[other].get(metric, {})
        both = set(a) & set(b)  # {None} where neither arm has randomness
        seeds = both or (set(b) if None in a else set(a) if None in b else set())
        pairs = [(a.get(s, a.get(None)), b.get(s, b.get(None))) for s in seeds]
        known = [y - x for x, y in pairs if x is not None and y is not None]
        return seed_spread(sorted(known), exact=both == {None})


def align(cells: Cells) -> Aligned:
    """Return the cells sorted alike; raise ``ValueError`` when they are not about the same rows."""
    if not cells:
        raise ValueError("nothing to compare: no evaluation table was given")
    arms: dict[str, dict[Seed, pa.Table]] = {}
    first: tuple[str, pa.Table] | None = None
    for (arm, seed), table in cells.items():
        name = f"{arm} (seed {seed})"
        kind = next((k for k in ("rank", "rating") if k in table.column_names), "ctr")
        if "sampled" in stamp_of(table):
            raise ValueError(
                f"{name} holds ranks against sampled negatives, which do not keep the order of "
                "models; compare full ranks"
            )
        table = table.sort_by([(c, "ascending") for c in _keys(kind)])
        if first is None:
            first = name, table
        _same_rows(kind, *first, name, table)
        arms.setdefault(arm, {})[seed] = table
    for arm, seeds in arms.items():
        if None in seeds and len(seeds) > 1:
            raise ValueError(f"{arm} has runs with and without a seed")
    return Aligned(kind, arms)


def card(
    aligned: Aligned,
    rows: np.ndarray,
    metrics: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Card:
    """Return the values of all arms on ``rows`` (bool[R]), resampled together."""
    make = {"rank": _rank_card, "ctr": _ctr_card, "rating": _rating_card}[aligned.kind]
    return make(aligned, rows, metrics, resamples, seed)


def _rank_card(
    aligned: Aligned, rows: np.ndarray, metrics: Sequence[str], resamples: int, seed: int
) -> Card:
    keep = pa.array(rows)
    points: dict = {}
    vectors: dict = {}
    users = 0
    for arm, tables in aligned.arms.items():
        points[arm], vectors[arm] = {m: {} for m in metrics}, {m: 0.0 for m in metrics}
        for s, table in tables.items():
            per_user = ranking.user_values(table.filter(keep), metrics)
            users = len(per_user.users)
            for metric, mean in per_user.means().items():
                points[arm][metric][s] = mean
                vectors[arm][metric] = vectors[arm][metric] + per_user.values[metric] / len(tables)
    names = [(arm, m) for arm in aligned.arms for m in metrics]
    draws: dict = {arm: {} for arm in aligned.arms}
    if users:
        matrix = np.stack([vectors[arm][m] for arm, m in names], axis=1)
        means = resampled_sums(matrix, resamples=resamples, seed=seed) / users
        for (arm, m), column in zip(names, means.T, strict=True):
            draws[arm][m] = column
    return Card(users, points, draws, vectors)


def _ctr_card(
    aligned: Aligned, rows: np.ndarray, metrics: Sequence[str], resamples: int, seed: int
) -> Card:
    where = aligned.rows
    user, label = where["user"].to_numpy()[rows], where["label"].to_numpy()[rows]
    predictions = {
        (arm, s): t["p"].to_numpy()[rows] for arm, ts in aligned.arms.items() for s, t in ts.items()
    }
    points: dict = {arm: {m: {} for m in metrics} for arm in aligned.arms}
    keep = pa.array(rows)
    for (arm, s), _ in predictions.items():
        values = ctr.metrics(aligned.arms[arm][s].filter(keep))
        for m in metrics:
            points[arm][m][s] = values[m]
    users, owner = np.unique(user, return_inverse=True)
    draws: dict = {arm: {} for arm in aligned.arms}
    if len(users):
        _sum_draws(draws, predictions, owner, label, metrics, resamples, seed)
        if "auc" in metrics and 0 < label.sum() < len(label):
            raw = resampled_auc(
                owner, label, list(predictions.values()), resamples=resamples, seed=seed
            )
            for arm in aligned.arms:
                own = [i for i, (a, _) in enumerate(predictions) if a == arm]
                draws[arm]["auc"] = raw[:, own].mean(axis=1)
        if ctr.SHOWN_PRIMARY in metrics:
            _impression_draws(draws, aligned, keep, users, resamples, seed)
    return Card(len(users), points, draws, {arm: {} for arm in aligned.arms})


def _impression_draws(
    draws: dict, aligned: Aligned, keep: pa.Array, users: np.ndarray, resamples: int, seed: int
) -> None:
    """Fill the draws of the mean AUC over impressions: users are drawn with all of theirs."""
    sums = []
    for tables in aligned.arms.values():
        total = np.zeros(len(users))
        for table in tables.values():
            values, user = ctr.impression_auc(table.filter(keep))
            owner = np.searchsorted(users, user)
            total += np.bincount(owner, values, minlength=len(users)) / len(tables)
        sums.append(total)
    count = np.bincount(owner, minlength=len(users))  # alike for all arms: labels decide
    if not count.any():
        return
    drawn = resampled_sums(np.stack([count, *sums], axis=1), resamples=resamples, seed=seed)
    for i, arm in enumerate(aligned.arms, start=1):
        draws[arm][ctr.SHOWN_PRIMARY] = _over(drawn[:, i], drawn[:, 0])


def _rating_card(
    aligned: Aligned, rows: np.ndarray, metrics: Sequence[str], resamples: int, seed: int
) -> Card:
    """Errors are means over rows: users are drawn with all their rows, as for clicks."""
    users, owner = np.unique(aligned.rows["user"].to_numpy()[rows], return_inverse=True)
    points: dict = {arm: {m: {} for m in metrics} for arm in aligned.arms}
    keep, sums = pa.array(rows), [np.bincount(owner, minlength=len(users))[:, None]]
    for arm, tables in aligned.arms.items():
        for s, table in tables.items():
            part = table.filter(keep)
            values = rating.metrics(part)
            for m in metrics:
                points[arm][m][s] = values[m]
            truth, p = part["rating"].to_numpy(), part["p"].to_numpy()
            sums.append(rating.user_errors(owner, truth, p))
    draws: dict = {arm: {} for arm in aligned.arms}
    if len(users):
        drawn = resampled_sums(np.hstack(sums), resamples=resamples, seed=seed)
        means = drawn[:, 1:] / drawn[:, :1]
        at = 0
        for arm, tables in aligned.arms.items():
            own = means[:, at : at + 2 * len(tables)].reshape(len(drawn), -1, 2)
            at += 2 * len(tables)
            both = {"rmse": np.sqrt(own[:, :, 0]).mean(1), "mae": own[:, :, 1].mean(1)}
            draws[arm] = {m: both[m] for m in metrics}
    return Card(len(users), points, draws, {arm: {} for arm in aligned.arms})


def _sum_draws(
    draws: dict,
    predictions: Mapping[tuple[str, Seed], np.ndarray],
    owner: np.ndarray,
    label: np.ndarray,
    metrics: Sequence[str],
    resamples: int,
    seed: int,
) -> None:
    """Fill the draws of those metrics that are ratios of sums over users."""
    n = owner.max() + 1
    rows = np.bincount(owner).astype(np.float64)
    clicks = np.bincount(owner, label)
    both = rows * ((clicks > 0) & (clicks < rows))
    loss = {arm: np.zeros(n) for arm in draws}
    grouped = {arm: np.zeros(n) for arm in draws}
    runs = {arm: sum(a == arm for a, _ in predictions) for arm in draws}
    for (arm, _), p in predictions.items():
        loss[arm] += np.bincount(owner, ctr.row_loss(label, p)) / runs[arm]
        values, users = ctr.user_auc(owner, label, p)
        grouped[arm][users] += values * rows[users] / runs[arm]
    arms = list(draws)
    columns = [rows, clicks, both, *loss.values(), *grouped.values()]
    sums = resampled_sums(np.stack(columns, axis=1), resamples=resamples, seed=seed)
    total, base_rate = sums[:, 0], ctr.entropy(sums[:, 1] / sums[:, 0])
    for i, arm in enumerate(arms):
        mean = sums[:, 3 + i] / total
        wins = sums[:, 3 + len(arms) + i]
        ratios = {
            "logloss": mean,
            "ne": _over(mean, base_rate),
            "gauc": _over(wins, sums[:, 2]),
        }
        draws[arm].update({m: v for m, v in ratios.items() if m in metrics})


def _over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)


def _keys(kind: str) -> tuple[str, ...]:
    return ("user", "item") if kind == "rank" else ("row",)


_OF_KIND = {"rank": ("n_candidates",), "ctr": ("row", "label"), "rating": ("row", "rating")}


def _same_rows(kind: str, name: str, one: pa.Table, other_name: str, other: pa.Table) -> None:
    columns = ("user", "item", *_OF_KIND[kind])
    for table, who in ((one, name), (other, other_name)):
        missing = [c for c in (*columns, "rank" if kind == "rank" else "p")
                   if c not in table.column_names]  # fmt: skip
        if missing:
            raise ValueError(f"the table of {who} has no column {missing[0]!r}")
    for key in ("data", "split"):
        a, b = stamp_of(one).get(key), stamp_of(other).get(key)
        if a is not None and b is not None and a != b:
            raise ValueError(
                f"{name} and {other_name} were evaluated on different {key} ({a}, {b}); run both "
                "again on the same"
            )
    if one.num_rows != other.num_rows:
        raise ValueError(
            f"{name} has {one.num_rows} rows, {other_name} {other.num_rows}: they were evaluated "
            "on different targets"
        )
    for column in columns:
        if not np.array_equal(one[column].to_numpy(), other[column].to_numpy()):
            raise ValueError(
                f"{name} and {other_name} differ in column {column!r}: they were evaluated on "
                "different targets or candidates"
            )
