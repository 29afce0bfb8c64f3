"""What a number of users can show at all, and when two models may be called equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtr

if TYPE_CHECKING:
    from .cells import Card

POWER, LEVEL = 0.8, 0.05
MARGIN = 0.05  # of the base's value: differences below it count as none


def share_error(share: float, users: int) -> float:
    """Return the standard error of a share over ``users``, such as HR@10 of one target each."""
    return float(np.sqrt(share * (1 - share) / users))


def detectable(sd: float, users: int, power: float = POWER, level: float = LEVEL) -> float | None:
    """Return the mean paired difference that a two-sided test finds with probability ``power``.

    ``sd``: standard deviation of the differences over users. For hits it is nearly the root of the
    share of users with different outcomes. None without users.
    """
    if users < 1:
        return None
    return float((ndtri(1 - level / 2) + ndtri(power)) * sd / np.sqrt(users))


def equivalence(differences: np.ndarray, margin: float) -> float | None:
    """Return the p of two one-sided t-tests (Schuirmann, 1987): is the mean within +- ``margin``?

    A small p says so; a large p of a usual test does not. None with less than two users.
    """
    n = len(differences)
    if n < 2:
        return None
    mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1)) / np.sqrt(n)
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    below, above = (mean + margin) / error, (margin - mean) / error
    return float(max(stdtr(n - 1, -below), stdtr(n - 1, -above)))


@dataclass(frozen=True)
class Power:
    """The smallest difference that is found in 80 % of samples of ``users``, and the p of being
    equal to the base within 5 % of its value."""

    metric: str
    users: int
    detectable: float | None
    equivalence: float | None

    def __str__(self) -> str:
        if self.detectable is None:
            return f"Power ({self.metric}): not defined"
        equal = "" if self.equivalence is None else (
            f"; equal to the base within {MARGIN:.0%}: p {self.equivalence:.4f}"
        )  # fmt: skip
        return (
            f"Power ({self.metric}): of {self.users:,} users a difference of "
            f"{self.detectable:.4f} is found in {POWER:.0%} of samples{equal}"
        )


def power_of(card: Card, metric: str, base: str, other: str) -> Power | None:
    """Return the power of ``other`` against ``base`` on a card; None where it has no values.

    From the differences per user where the metric is a mean over users, else from its resamples.
    """
    value = card.value(base, metric)
    if value is None or metric not in card.draws[base]:
        return None
    margin = MARGIN * abs(value)
    if metric in card.vectors[base]:
        d = card.vectors[other][metric] - card.vectors[base][metric]
        sd = float(d.std(ddof=1)) if len(d) > 1 else 0.0
        return Power(metric, card.users, detectable(sd, len(d)), equivalence(d, margin))
    draws = card.draws[other][metric] - card.draws[base][metric]
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None
    outside = max((draws <= -margin).mean(), (draws >= margin).mean())
    return Power(metric, card.users, detectable(float(draws.std()), 1), float(outside))
