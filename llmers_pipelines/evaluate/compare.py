"""Enhanced against base, controls and reference baselines: the rows of every report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from . import ctr
from .bootstrap import RESAMPLES
from .cells import Aligned, Card, Cells, align, card
from .power import Power, power_of
from .significance import Gain, SeedSpread, Verdict, holm, lift_claim
from .slices import ALL, Slice, describe


@dataclass(frozen=True)
class Comparison:
    """``rows``: one dict per metric and slice, primary first; None where undefined, never NaN.

    ``verdict`` is that of the primary metric over all rows, ``slices`` what each slice holds,
    ``over_base`` the gain and spread over the base of each control on the primary metric: a control
    carries no knowledge and should have none.
    """

    rows: list[dict[str, Any]]
    verdict: Verdict
    primary: str
    controls: tuple[str, ...]
    references: tuple[str, ...]
    slices: list[dict[str, object]]
    marks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    over_base: dict[str, tuple[Gain | None, SeedSpread]] = field(default_factory=dict)
    power: Power | None = None  # of the primary metric over all rows

    @property
    def headline(self) -> dict[str, Any]:
        return self.rows[0]

    def table(self) -> pa.Table:
        """Return the rows as an Arrow table; absent values are null."""
        return pa.table(
            {c: pa.array([r[c] for r in self.rows], _arrow_type(c)) for c in self.rows[0]}
        )

    def to_json(self) -> str:
        """Return the run's JSON, the one source of all tables in documents."""
        return json.dumps(
            {
                "primary": self.primary, "verdict": self.verdict.status,
                "reasons": self.verdict.reasons, "marks": self.marks, "seeds": self.seeds,
                "slices": self.slices, "rows": self.rows,
            },
            allow_nan=False,
        )  # fmt: skip


def compare(
    cells: Cells,
    *,
    base: str = "base",
    enhanced: str = "enhanced",
    references: Sequence[str] = (),
    controls: Sequence[str] | None = None,
    slices: Sequence[Slice] = (ALL,),
    metrics: Sequence[str] | None = None,
    primary: str | None = None,
    marks: Sequence[str] = (),
    required: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare arms of one experiment on the same targets.

    ``cells`` maps (arm, training seed) to a rank or prediction table; the seed None marks an arm
    without randomness. Arms that are neither base, enhanced nor ``references`` (reference baselines
    such as ItemKNN) count as controls in the same slot. Seeds are averaged per user before the
    tests over users. p: paired t-test, exact McNemar for one-seed hits, bootstrap for clicks and
    ratings. ``required``: controls without which no lift is claimed. Default metrics: those of
    ``ranking.default_metrics``, of ``ctr`` or of ``rating``.

    Corrected p: the primary metric (NDCG@10 or AUC) over all rows is declared before running and
    tested alone; all other rows form one family under Holm's correction. A row's ``claim`` follows
    ``significance.lift_claim``.
    """
    aligned = align(cells)
    for arm in (base, enhanced, *references, *(controls or ())):
        if arm not in aligned.arms:
            raise ValueError(f"no table for the arm {arm!r}; there are {sorted(aligned.arms)}")
    if controls is None:
        controls = [a for a in aligned.arms if a not in (base, enhanced, *references)]
    usual, default = aligned.usual()
    primary = primary or usual
    metrics = list(dict.fromkeys([primary, *(metrics or default)]))
    if not slices or slices[0].name != ALL.name:
        slices = (ALL, *slices)
    facts = describe(slices, aligned.rows)
    cards = [card(aligned, s.rows(aligned.rows), metrics, resamples=resamples, seed=seed)
             for s in slices]  # fmt: skip
    arms = _Arms(base, enhanced, tuple(controls), tuple(references), tuple(marks), tuple(required))
    made = [
        _row(c, fact, metric, arms)
        for metric in metrics
        for c, fact in zip(cards, facts, strict=True)
    ]
    adjusted = [made[0][0]["p"], *holm([r["p"] for r, _ in made[1:]])]
    verdicts = []
    for (row, parts), p in zip(made, adjusted, strict=True):
        verdict = parts(p)
        row.update(p_corrected=p, claim=verdict.status, reasons="; ".join(verdict.reasons))
        verdicts.append(verdict)
    return Comparison(
        [row for row, _ in made], verdicts[0], primary, arms.controls, arms.references, facts,
        arms.marks, _seeds(aligned),
        {c: (cards[0].gain(primary, base, c), cards[0].spread(primary, base, c))
         for c in arms.controls},
        None if base == enhanced else power_of(cards[0], primary, base, enhanced),
    )  # fmt: skip


def correct_primaries(comparisons: Sequence[Comparison]) -> list[float | None]:
    """Return Holm-corrected p of the primary rows of several methods shown in one leaderboard."""
    return holm([c.headline["p"] for c in comparisons])


@dataclass(frozen=True)
class _Arms:
    base: str
    enhanced: str
    controls: tuple[str, ...]
    references: tuple[str, ...]
    marks: tuple[str, ...]
    required: tuple[str, ...] = ()


def _row(c: Card, fact: dict[str, object], metric: str, arms: _Arms) -> tuple[dict, Any]:
    """Return the row without its verdict, and what gives the verdict for a corrected p."""
    gain = c.gain(metric, arms.base, arms.enhanced)
    spread = c.spread(metric, arms.base, arms.enhanced)
    controls = {n: c.gain(metric, n, arms.enhanced) for n in arms.controls}
    references = {n: c.gain(metric, n, arms.base) for n in arms.references}
    row = {
        "metric": metric,
        "slice": fact["slice"],
        "users": fact["users"],
        "targets": fact["targets"],
        "share": fact["share"],
        "base": c.value(arms.base, metric),
        "base_sd": c.seed_sd(arms.base, metric),
        "enhanced": c.value(arms.enhanced, metric),
        "enhanced_sd": c.seed_sd(arms.enhanced, metric),
        **_gain_fields(gain),
        "relaimpr": (
            ctr.relaimpr(gain.other, gain.base) if gain and metric in ctr.AUCS else None
        ),
        "seeds": spread.seeds,
        "seed_sd": spread.sd,
        "seed_low": spread.low,
        "seed_high": spread.high,
    }
    for kind, gains in (("control", controls), ("reference", references)):
        for name, g in gains.items():
            row[f"{kind}_{name}"] = c.value(name, metric)
            row[f"{kind}_{name}_difference"] = g.difference if g else None
            row[f"{kind}_{name}_low"] = g.low if g else None
            row[f"{kind}_{name}_high"] = g.high if g else None

    def verdict(p: float | None) -> Verdict:
        if gain is None:
            return Verdict("not shown", ("the slice is empty or the metric is not defined on it",))
        return lift_claim(
            gain, spread, corrected_p=p, marks=arms.marks, required=arms.required,
            references={n: g for n, g in references.items() if g},
            controls={n: g for n, g in controls.items() if g},
        )  # fmt: skip

    return row, verdict


def _gain_fields(gain: Gain | None) -> dict[str, Any]:
    names = ("difference", "relative", "low", "high", "relative_low", "relative_high", "p", "test")
    return {n: getattr(gain, n) if gain else None for n in names}


def _seeds(aligned: Aligned) -> tuple[int, ...]:
    return tuple(sorted({s for seeds in aligned.arms.values() for s in seeds if s is not None}))


def _arrow_type(column: str) -> pa.DataType:
    if column in ("metric", "slice", "test", "claim", "reasons"):
        return pa.string()
    return pa.int64() if column in ("users", "targets", "seeds") else pa.float64()
