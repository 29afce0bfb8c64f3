"""The promotion gate: a pure decision on validation tables; it moves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from .bootstrap import RESAMPLES
from .cells import align, card
from .predict import stamp_of
from .significance import Gain

REFUSED_MARKS = {
    "contaminated": "its inputs may contain held-out interactions",
    "valid_seen": "its inputs have seen the validation rows on which the gate decides",
    "labels_seen": "its inputs have seen the labels it is evaluated on",
    "memorised": "a language model behind its inputs knows the data set by heart, as probed",
}
NO_CHAMPION = "there is no champion yet"


@dataclass(frozen=True)
class Decision:
    """``intervals`` holds the candidate's paired gain over "champion" and over "reference"."""

    promote: bool
    reasons: tuple[str, ...]
    intervals: dict[str, Gain]


def refusals(marks: Sequence[str]) -> list[str]:
    """Return why a result with these marks is refused, whatever its figures: empty if it is not."""
    return [f"marked {m}: {REFUSED_MARKS[m]}" for m in marks if m in REFUSED_MARKS]


def decide(
    candidate: pa.Table,
    champion: pa.Table | None,
    reference: pa.Table | None,
    *,
    marks: Sequence[str] = (),
    is_reference: bool = False,
    is_refresh: bool = False,
    metric: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Decision:
    """Decide whether ``candidate`` becomes the champion, on the validation split alone.

    Two conditions on the primary metric (NDCG@10, or AUC for prediction tables), each by the 95 %
    interval of the paired gain over users: it lies above zero against the champion (without one
    this holds by default), and above zero against the fixed reference baseline. Two candidates have
    less to show. The reference itself (``is_reference``) has no gain over itself, and may be the
    first champion. The champion's own method and settings on newer inputs (``is_refresh``) need not
    be better than what they were: neither interval may lie below zero. Refusing them would leave a
    bundle in service that knows nothing of new items and new interactions.

    Refuses marked results (``contaminated``, ``labels_seen``, ``valid_seen``, ``memorised``),
    tables of another split, and tables about other rows.
    """
    tables = {"candidate": candidate, "champion": champion, "reference": reference}
    refused = refusals(marks)
    if reference is None:
        refused.append("no table of the fixed reference baseline was given")
    for name, table in tables.items():
        split = stamp_of(table).get("split", "unknown") if table is not None else "valid"
        if split != "valid":
            refused.append(f"the table of the {name} is about split {split}, expected valid")
    if refused:
        return Decision(False, tuple(refused), {})
    try:
        aligned = align({(n, None): t for n, t in tables.items() if t is not None})
    except ValueError as error:
        return Decision(False, (str(error),), {})
    metric = metric or aligned.usual()[0]
    every = np.ones(candidate.num_rows, bool)
    values = card(aligned, every, [metric], resamples=resamples, seed=seed)
    gains: dict[str, Gain] = {}
    for name in ("champion", "reference"):
        if name in aligned.arms:
            gain = values.gain(metric, name, "candidate")
            if gain is None:
                return Decision(False, (f"{metric} is not defined on these tables",), {})
            gains[name] = gain
    reasons, promote = [], True
    if champion is None:
        reasons.append(NO_CHAMPION)
    opponents = {"champion": "the champion", "reference": "the reference baseline"}
    for name, told in opponents.items():
        if name not in gains:
            continue
        if name == "reference" and is_reference:
            reasons.append("it is the reference baseline itself")
            continue
        gain = gains[name]
        passes = not gain.worse if is_refresh else gain.better
        promote = promote and passes
        reasons.append(f"{metric} {_verb(passes, is_refresh)} {told}: {gain}")
    return Decision(promote, tuple(reasons), gains)


def _verb(passes: bool, refresh: bool) -> str:
    if refresh:
        return "(a refresh) is " + ("not shown to be worse than" if passes else "worse than")
    return "is better than" if passes else "is not shown to be better than"
