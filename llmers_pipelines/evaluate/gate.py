"""The promotion gate: a pure decision on validation tables; it moves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from . import ctr, ranking
from .bootstrap import RESAMPLES
from .cells import align, card
from .predict import stamp_of
from .significance import Gain

REFUSED_MARKS = {
    "contaminated": "its inputs may contain held-out interactions",
    "valid_seen": "its inputs have seen the validation rows on which the gate decides",
    "labels_seen": "its inputs have seen the labels it is evaluated on",
}
NO_CHAMPION = "there is no champion yet"


@dataclass(frozen=True)
class Decision:
    """``intervals`` holds the candidate's paired gain over "champion" and over "reference"."""

    promote: bool
    reasons: tuple[str, ...]
    intervals: dict[str, Gain]


def decide(
    candidate: pa.Table,
    champion: pa.Table | None,
    reference: pa.Table | None,
    *,
    marks: Sequence[str] = (),
    metric: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Decision:
    """Decide whether ``candidate`` becomes the champion, on the validation split alone.

    Two conditions on the primary metric (NDCG@10, or AUC for prediction tables). Against the
    champion: the 95 % interval of the paired gain over users lies above zero; without a champion
    this holds by default. Against the fixed reference baseline: the candidate's mean is not below
    it. The mean, not the interval, because the reference guards against weak models and a model
    that is below it on average has no claim to be served, however wide the interval; an interval
    above zero would refuse the reference itself as a first champion. Refuses marked results
    (``contaminated``, ``labels_seen``), tables of another split, and tables about other rows.
    """
    tables = {"candidate": candidate, "champion": champion, "reference": reference}
    refusals = [f"marked {m}: {REFUSED_MARKS[m]}" for m in marks if m in REFUSED_MARKS]
    if reference is None:
        refusals.append("no table of the fixed reference baseline was given")
    for name, table in tables.items():
        split = stamp_of(table).get("split", "unknown") if table is not None else "valid"
        if split != "valid":
            refusals.append(f"the table of the {name} is about split {split}, expected valid")
    if refusals:
        return Decision(False, tuple(refusals), {})
    try:
        aligned = align({(n, None): t for n, t in tables.items() if t is not None})
    except ValueError as error:
        return Decision(False, (str(error),), {})
    metric = metric or (ranking if aligned.kind == "rank" else ctr).PRIMARY
    every = np.ones(candidate.num_rows, bool)
    values = card(aligned, every, [metric], resamples=resamples, seed=seed)
    gains: dict[str, Gain] = {}
    for name in ("champion", "reference"):
        if name in aligned.arms:
            gain = values.gain(metric, name, "candidate")
            if gain is None:
                return Decision(False, (f"{metric} is not defined on these tables",), {})
            gains[name] = gain
    sign = -1 if metric in ctr.LOWER_IS_BETTER else 1
    reasons, promote = [], True
    if champion is None:
        reasons.append(NO_CHAMPION)
    else:
        promote = gains["champion"].better
        verb = "is better than" if promote else "is not shown to be better than"
        reasons.append(f"{metric} {verb} the champion: {gains['champion']}")
    above = sign * gains["reference"].difference >= 0
    verb = "is not below" if above else "is below"
    reasons.append(f"{metric} {verb} the reference baseline: {gains['reference']}")
    return Decision(promote and above, tuple(reasons), gains)
