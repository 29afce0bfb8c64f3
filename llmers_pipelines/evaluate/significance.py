"""Is a difference real? Tests over users, spread over seeds, and the rule for claiming a lift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.special import bdtr, stdtr, stdtrit

from .bootstrap import RESAMPLES, interval, resampled_sums

MIN_SEEDS = 3
LEVEL = 0.05


@dataclass(frozen=True)
class Gain:
    """A paired difference ``other - base`` of one metric over the same users.

    ``low, high`` is its 95 % interval over users, ``relative`` the difference over ``base``.
    ``test`` names where ``p`` comes from. None = not defined, never NaN.
    """

    metric: str
    base: float
    other: float
    low: float | None
    high: float | None
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    p: float | None = None
    test: str = ""
    users: int = 0
    lower_is_better: bool = False

    @property
    def difference(self) -> float:
        return self.other - self.base

    @property
    def better(self) -> bool:
        """The interval lies wholly on the good side of zero."""
        edge = self.high if self.lower_is_better else self.low
        return edge is not None and (edge < 0 if self.lower_is_better else edge > 0)

    @property
    def worse(self) -> bool:
        """The interval lies wholly on the bad side of zero."""
        edge = self.low if self.lower_is_better else self.high
        return edge is not None and (edge > 0 if self.lower_is_better else edge < 0)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.difference:+.4f}, no interval"
        return f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def gain_from_draws(
    metric: str,
    base: float,
    other: float,
    base_draws: np.ndarray,
    other_draws: np.ndarray,
    **more: Any,
) -> Gain:
    """Return the gain with percentile intervals of paired draws float64[R]."""
    change = other_draws - base_draws
    low, high = interval(change)
    relative = relative_low = relative_high = None
    if base > 0:
        relative = (other - base) / base
        ratio = np.full(len(change), np.nan)
        np.divide(change, base_draws, out=ratio, where=base_draws > 0)
        relative_low, relative_high = interval(ratio)
    return Gain(
        metric, base, other, low, high, relative, relative_low, relative_high, **more
    )  # fmt: skip


def paired_gain(
    base: np.ndarray,
    other: np.ndarray,
    metric: str = "",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Gain:
    """Return the mean gain of ``other`` over ``base`` (float64[M] per user) with its interval."""
    if base.shape != other.shape or not len(base):
        raise ValueError(f"paired values need equal, non-empty users: {base.shape}, {other.shape}")
    draws = resampled_sums(np.stack([base, other], 1), resamples=resamples, seed=seed) / len(base)
    return gain_from_draws(
        metric, float(base.mean()), float(other.mean()), draws[:, 0], draws[:, 1],
        p=paired_t(other - base).p, test="paired t", users=len(base),
    )  # fmt: skip


@dataclass(frozen=True)
class TTest:
    t: float | None
    df: int
    p: float | None


def paired_t(differences: np.ndarray) -> TTest:
    """Return the two-sided t-test of mean zero; t is None where the differences do not vary."""
    n = len(differences)
    if n < 2:
        return TTest(None, max(n - 1, 0), None)
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    if sd <= 1e-15 * max(abs(mean), 1e-300):
        return TTest(None, n - 1, 1.0 if mean == 0 else 0.0)
    t = mean / (sd / np.sqrt(n))
    return TTest(float(t), n - 1, float(2 * stdtr(n - 1, -abs(t))))


def mcnemar(base: np.ndarray, other: np.ndarray) -> float:
    """Return the exact two-sided p of paired binary outcomes (hits), from discordant users."""
    return mcnemar_counts(int(((base > 0) & ~(other > 0)).sum()),
                          int((~(base > 0) & (other > 0)).sum()))  # fmt: skip


def mcnemar_counts(only_base: int, only_other: int) -> float:
    n = only_base + only_other
    return min(1.0, 2 * float(bdtr(min(only_base, only_other), n, 0.5))) if n else 1.0


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values of one family; None stays None and does not count."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    out: list[float | None] = [None] * len(p)
    running = 0.0
    for place, (value, i) in enumerate(known):
        running = max(running, min(1.0, (len(known) - place) * value))
        out[i] = running
    return out


@dataclass(frozen=True)
class SeedSpread:
    """Differences over training seeds: mean, sample sd, 95 % t-interval (None with one seed).

    ``exact`` marks models without any randomness: one run is all there is, and no spread.
    """

    seeds: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    exact: bool = False


def seed_spread(values: Sequence[float], *, exact: bool = False) -> SeedSpread:
    """Return the spread of ``values``, one per training seed."""
    n = len(values)
    mean = float(np.mean(values)) if n else None
    if exact and n == 1:
        return SeedSpread(n, mean, 0.0, mean, mean, exact=True)
    if mean is None or n < 2:
        return SeedSpread(n, mean, None, None, None)
    sd = float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 0.975) * sd / np.sqrt(n))
    return SeedSpread(n, mean, sd, mean - half, mean + half)


@dataclass(frozen=True)
class Verdict:
    status: Literal["claimed", "not shown", "exploratory"]
    reasons: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.status}: {'; '.join(self.reasons)}" if self.reasons else self.status


def lift_claim(
    gain: Gain,
    seeds: SeedSpread,
    *,
    references: Mapping[str, Gain],
    controls: Mapping[str, Gain],
    marks: Sequence[str] = (),
    required: Sequence[str] = (),
    corrected_p: float | None = None,
) -> Verdict:
    """Return whether ``gain`` (enhanced over base) may be called a lift, with every reason why not.

    All must hold: the base is strong (its interval lies wholly below no reference baseline;
    ``references``: base over each, at least one); the interval over users excludes zero; at least
    three seeds, and their t-interval excludes zero, and the mean gain is at least two standard
    deviations over seeds; the interval of enhanced over each of ``controls`` (at least one)
    excludes zero, and none of the ``required`` ones is missing; no mark such as ``contaminated``,
    ``labels_seen`` or ``memorised``; ``corrected_p``, where given, is below 0.05. With one seed the
    verdict is ``exploratory`` unless users, baseline or controls already speak against it. Models
    without randomness (``seeds.exact``) need no seeds.
    """
    sign = -1 if gain.lower_is_better else 1
    against = [f"the results are marked {mark!r}" for mark in marks]
    if not references:
        against.append("no reference baseline was evaluated, so the base may be weak")
    against += [
        f"the base is weaker than the reference {name}: {g}"
        for name, g in references.items()
        if g.worse
    ]
    if not gain.better:
        against.append(f"the interval over users is not on the good side of zero: {gain}")
    if corrected_p is not None and corrected_p >= LEVEL:
        against.append(f"the corrected p is {corrected_p:.3g}")
    if not controls:
        against.append("no control in the same slot was evaluated")
    missing = [f"the control {n} was not run" for n in required if n not in controls]
    against += [f"not above the control {n}: {g}" for n, g in controls.items() if not g.better]
    if seeds.low is None or seeds.high is None or seeds.sd is None or seeds.mean is None:
        if against:
            return Verdict("not shown", tuple(against))
        return Verdict("exploratory", ("one seed: the spread over seeds is unknown", *missing))
    against += missing
    if seeds.seeds < MIN_SEEDS and not seeds.exact:
        against.append(f"{seeds.seeds} seeds, at least {MIN_SEEDS} are needed")
    if sign * (seeds.low if sign > 0 else seeds.high) <= 0:
        against.append(
            f"the interval over {seeds.seeds} seeds does not lie on the good side of zero: "
            f"[{seeds.low:+.4f}, {seeds.high:+.4f}]"
        )
    if abs(seeds.mean) < 2 * seeds.sd:
        against.append(f"the gain is below two deviations over seeds ({seeds.sd:.4f})")
    return Verdict("not shown", tuple(against)) if against else Verdict("claimed")
