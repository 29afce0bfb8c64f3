"""Figures of two sets of answers to the same rows: validity, refusals, length, agreement."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluate.bootstrap import interval, resampled_sums
from ..prompts.checks import normal

RESAMPLES = 2000
QUANTILES = (0.1, 0.5, 0.9)
NAN = float("nan")


@dataclass(frozen=True)
class Answered:
    """One row's answer under one revision, as it was kept and as it is judged now.

    ``status`` and ``reason`` are those of the run; ``valid`` (the raw answer parses) and
    ``grounded`` (the grounding rule accepts it) are judged by the present code. ``valid`` is None
    where nothing came back, ``grounded`` where nothing parses.
    """

    row_id: str
    status: str
    reason: str = ""
    raw: str | None = None
    text: str | None = None
    value: Mapping[str, Any] | None = None
    valid: bool | None = None
    grounded: bool | None = None
    tokens: int = 0
    key: str = ""


def per_row(answers: Sequence[Answered]) -> dict[str, np.ndarray]:
    """Return float64[n] per figure, NaN where it is not defined for a row."""

    def column(value: Callable[[Answered], float | bool | None]) -> np.ndarray:
        return np.array([NAN if (v := value(a)) is None else float(v) for a in answers])

    return {
        "answered": column(lambda a: a.raw is not None),
        "valid": column(lambda a: a.valid),
        "grounded": column(lambda a: a.grounded),
        "accepted": column(lambda a: a.status in ("ok", "repaired")),
        "repaired": column(lambda a: a.status == "repaired"),
        "quarantined": column(lambda a: a.status == "quarantined"),
        "words": column(lambda a: None if a.text is None else len(a.text.split())),
        "tokens": column(lambda a: None if a.text is None else a.tokens),
    }


def compare(old: Sequence[Answered], new: Sequence[Answered], *, seed: int) -> list[dict[str, Any]]:
    """Return a row per figure: mean and 95 % interval of each side and of new minus old.

    Intervals are percentiles of 2,000 bootstrap samples of rows, drawn alike for both sides.
    """
    rows = []
    before, after = per_row(old), per_row(new)
    for name in before:
        both = np.column_stack([before[name], after[name]])
        known = np.isfinite(both)
        values = np.column_stack([np.where(known, both, 0.0), known])
        draws = resampled_sums(values, resamples=RESAMPLES, seed=seed)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = values.sum(0)[:2] / values.sum(0)[2:]
            drawn = draws[:, :2] / draws[:, 2:]
        row = {"figure": name, "from": means[0], "to": means[1], "difference": means[1] - means[0]}
        for side, column in (("from", drawn[:, 0]), ("to", drawn[:, 1]),
                             ("difference", drawn[:, 1] - drawn[:, 0])):  # fmt: skip
            row[f"{side}_low"], row[f"{side}_high"] = interval(column)
        if name in ("words", "tokens"):
            row |= {f"{side}_quantiles": _quantiles(v[name])
                    for side, v in (("from", before), ("to", after))}  # fmt: skip
        rows.append(row)
    return rows


def agreement(
    old: Sequence[Answered], new: Sequence[Answered], *, seed: int
) -> list[dict[str, Any]]:
    """Return a row per field and measure over the rows that both revisions answered validly.

    Lists: Jaccard of their elements. Texts: share of equal ones, F1 of shared words (each as often
    as both hold it), and, for the whole text, cosine of TF-IDF weights within this sample. Other
    values: share of equal ones.
    """
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a.value and b.value]
    if not pairs:
        return []
    first = pairs[0][0].value or {}
    series: dict[tuple[str, str], list[float]] = {}
    for name in first:
        values = [((a.value or {}).get(name), (b.value or {}).get(name)) for a, b in pairs]
        if isinstance(first[name], list):
            series[name, "Jaccard"] = [jaccard(a, b) for a, b in values]
            continue
        series[name, "equal"] = [float(a == b) for a, b in values]
        if isinstance(first[name], str):
            series[name, "word F1"] = [word_f1(a, b) for a, b in values]
    texts = [(a.text or "", b.text or "") for a, b in pairs]
    if "text" not in first:
        series["text (whole)", "word F1"] = [word_f1(a, b) for a, b in texts]
    series["text (whole)", "TF-IDF cosine"] = tfidf_cosines(texts)
    out = []
    for (name, how), values in series.items():
        sums = resampled_sums(np.array(values)[:, None], resamples=RESAMPLES, seed=seed)
        low, high = interval(sums[:, 0] / len(values))
        out.append({"field": name, "measure": how, "mean": float(np.mean(values)), "low": low,
                    "high": high, "rows": len(values)})  # fmt: skip
    return out


def most_different(
    old: Sequence[Answered], new: Sequence[Answered], top: int
) -> list[dict[str, Any]]:
    """Return the rows whose texts share the fewest words, worst first."""
    both = [(word_f1(a.text or "", b.text or ""), a, b) for a, b in zip(old, new, strict=True)
            if a.text is not None or b.text is not None]  # fmt: skip
    both.sort(key=lambda entry: (entry[0], entry[1].row_id))
    return [
        {
            "id": a.row_id, "word_f1": score, "from": a.text, "to": b.text,
            "from_status": a.status, "to_status": b.status,
            "why": "; ".join(filter(None, (a.reason, b.reason))),
        }
        for score, a, b in both[:top]
    ]  # fmt: skip


def refusals(answers: Sequence[Answered]) -> dict[str, int]:
    """Return how often each kind of reason was given, without its particulars, most often first."""
    counts = Counter(
        kind_of_reason(part)
        for a in answers
        if a.status in ("quarantined", "no_answer")
        for part in a.reason.split("; asked again: ")[0].split("; ")
    )
    return dict(counts.most_common())


def kind_of_reason(reason: str) -> str:
    """Return a reason without quoted words, parentheses and numbers, so that equal kinds count."""
    plain = re.sub(r"\([^()]*\)|'[^']*'|\"[^\"]*\"", "", reason)
    return " ".join(re.sub(r"\d+", "N", plain).split()).strip(" :,")


def word_f1(a: str | None, b: str | None) -> float:
    """Return 2 * shared / (words of a + words of b), shared counted with multiplicity; 1 if empty.

    (The harmonic mean of the precision and the recall of words.)
    """
    first, second = Counter(normal(a or "").split()), Counter(normal(b or "").split())
    total = first.total() + second.total()
    return 1.0 if not total else 2 * (first & second).total() / total


def jaccard(a: Sequence[Any] | None, b: Sequence[Any] | None) -> float:
    """Return |A and B| / |A or B| of two lists as sets, letter case aside; 1 if both are empty."""
    first = {str(v).casefold() for v in a or ()}
    second = {str(v).casefold() for v in b or ()}
    return len(first & second) / len(first | second) if first | second else 1.0


def tfidf_cosines(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return the cosine of each pair: counts times log((1 + n) / (1 + df)) + 1 over all texts."""
    bags = [Counter(normal(text).split()) for pair in pairs for text in pair]
    holds = Counter(word for bag in bags for word in bag)
    weight = {w: math.log((1 + len(bags)) / (1 + n)) + 1 for w, n in holds.items()}
    rows = [{w: c * weight[w] for w, c in bag.items()} for bag in bags]
    norms = [math.sqrt(sum(v * v for v in row.values())) for row in rows]
    out = []
    for i in range(0, len(rows), 2):
        a, b = rows[i], rows[i + 1]
        dot = sum(v * b.get(w, 0.0) for w, v in a.items())
        lengths = norms[i] * norms[i + 1]
        out.append(dot / lengths if lengths else float(a == b))
    return out


def _quantiles(values: np.ndarray) -> dict[str, float]:
    known = values[np.isfinite(values)]
    return {f"{q:g}": float(np.quantile(known, q)) for q in QUANTILES} if len(known) else {}
