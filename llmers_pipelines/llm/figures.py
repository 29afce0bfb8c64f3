"""Estimated totals with what is known of their error: a sample's total, and sums yet to be drawn.

Source: Cochran, Sampling Techniques, 3rd ed., equations 5.1 and 5.14 (stratified total).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

STRATA = 20


@dataclass(frozen=True)
class Figure:
    """An expected number, a 90 % interval around it, and where it comes from.

    ``low`` and ``high`` are None where nothing is known of the spread. ``source`` is rendered,
    sampled, earlier answers, another data set (then without an interval), pilot, bound, price
    table, earlier runs, none or unknown (then ``value`` is None); ``se`` is the standard error that
    counting on a sample adds.
    """

    value: float | None
    source: str
    low: float | None = None
    high: float | None = None
    se: float = 0.0
    detail: str = ""

    def times(self, factor: float) -> Figure:
        """Return the figure in another unit."""
        scaled = [None if v is None else v * factor for v in (self.value, self.low, self.high)]
        return Figure(scaled[0], self.source, scaled[1], scaled[2], self.se * factor, self.detail)


UNKNOWN = Figure(None, "unknown")
NOTHING = Figure(0.0, "none", 0.0, 0.0)


@dataclass(frozen=True)
class Stratum:
    """Places of the units of one stratum, and those of them that are looked at."""

    size: int
    chosen: tuple[int, ...]


def strata(sizes: Sequence[float], sample: int, seed: int = 0) -> list[Stratum]:
    """Return up to 20 strata of equal counts by ``sizes``, each with its share of ``sample``.

    Units are drawn without replacement; at or below ``sample`` units all are chosen.
    """
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))
    if len(order) <= sample:
        return [Stratum(len(order), tuple(order))] if order else []
    rng = random.Random(seed)
    groups = min(STRATA, max(1, sample // 2))  # two of each at least: their spread is needed
    cuts = [round(g * len(order) / groups) for g in range(groups + 1)]
    takes = [round(g * sample / groups) for g in range(groups + 1)]
    out = []
    for g in range(groups):
        units = order[cuts[g] : cuts[g + 1]]
        take = min(len(units), takes[g + 1] - takes[g])
        out.append(Stratum(len(units), tuple(sorted(rng.sample(units, take)))))
    return out


def stratified_total(parts: Sequence[tuple[int, Sequence[float]]]) -> tuple[float, float]:
    """Return (total, standard error) of strata given as (units in it, values looked at).

    total = sum N_h mean_h; variance = sum N_h^2 (1 - n_h / N_h) s_h^2 / n_h.
    """
    total = spread = 0.0
    for size, values in parts:
        if not values:
            raise ValueError(f"a stratum of {size} units without a value")
        total += size * fmean(values)
        if len(values) > 1:
            spread += size**2 * (1 - len(values) / size) * variance(values) / len(values)
    return total, math.sqrt(spread)


def predicted_total(values: Sequence[float], units: int) -> tuple[float, float, float]:
    """Return (total, low, high) of ``units`` further draws from where ``values`` come from.

    The 90 % interval holds the error of the mean and the spread of the draws themselves:
    units mean -+ t s sqrt(units + units^2 / n), with Student's t of n - 1 degrees.
    """
    mean = fmean(values)
    if len(values) < 2:
        return units * mean, 0.0, math.inf
    half = _t95(len(values) - 1) * math.sqrt(variance(values) * (units + units**2 / len(values)))
    return units * mean, max(0.0, units * mean - half), units * mean + half


def _t95(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.95))


def added(figures: Sequence[Figure]) -> Figure:
    """Return the sum of independent figures: half-widths add in squares, those of bounds plainly.

    What is unknown is left out of the value and stays in the source.
    """
    known = [f for f in figures if f.value is not None]
    if not known:
        return UNKNOWN if figures else NOTHING
    total = sum(f.value or 0.0 for f in known)
    told = (part for f in figures for part in f.source.split(" + ") if part != "none")
    sources = list(dict.fromkeys(told)) or ["none"]
    low = high = None
    if all(f.low is not None and f.high is not None for f in known):
        below = [(f.value or 0) - (f.low or 0) for f in known]
        above = [(f.high or 0) - (f.value or 0) for f in known]
        width = sum if any("bound" in f.source for f in known) else (lambda w: math.hypot(*w))
        low, high = max(0.0, total - width(below)), total + width(above)
    se = math.hypot(*(f.se for f in known))
    return Figure(total, " + ".join(sources), low, high, se)
