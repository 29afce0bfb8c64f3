"""From a judge's scores to samples that stay: thresholds that move from round to round (LLMHD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ..data.text import ACCEPTED
from .derivation import DerivedTable, Given


def between(first: float, last: float, number: int, rounds: int) -> float:
    """Return the threshold of round ``number`` (from 1) of ``rounds``, linear between the two."""
    return last if rounds < 2 else first + (last - first) * (number - 1) / (rounds - 1)


@dataclass(frozen=True)
class HardSamples(DerivedTable):
    """``user_id, item_id, label, score, hard`` of every scored pair.

    ``pairwise``: a pair and the item that it was trained against are hard where
    ``s_p - s_n < eps_pair`` (the prose of the paper; its slide has the sign the other way round).
    Else a positive is hard where ``floor <= score < eps_pos``, a negative where its score is above
    ``eps_neg``. Thresholds go from their first to their last value over the rounds. ``floor`` also
    holds for the positive of a pair: with the default an obviously false positive is kept as the
    paper prints it, with one above 0 it is dropped as noise. Sources: the scores, the pairs, the
    splits. A pair without an accepted score is not hard.
    """

    rows: ClassVar[str] = "samples"

    round: int = 1
    rounds: int = 1
    pairwise: bool = True
    floor: float = 0.0
    eps_pos: tuple[float, float] = (8.0, 6.0)
    eps_neg: tuple[float, float] = (2.0, 4.0)
    eps_pair: tuple[float, float] = (7.0, 3.0)

    def __post_init__(self) -> None:
        if not 1 <= self.round <= self.rounds:
            raise ValueError(f"HardSamples(round={self.round}, rounds={self.rounds}): from 1")
        wrong = self.eps_pos[0] < self.eps_pos[1] or self.eps_pair[0] < self.eps_pair[1]
        if wrong or self.eps_neg[0] > self.eps_neg[1]:
            raise ValueError(
                f"HardSamples(eps_pos={self.eps_pos}, eps_neg={self.eps_neg}, eps_pair="
                f"{self.eps_pair}): eps_pos and eps_pair fall over the rounds, eps_neg rises"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        scores = given.table("request_key")
        pairs = given.table("partner_id")
        columns = (scores[c].to_pylist() for c in ("pair_id", "score", "status"))
        known = {p: s for p, s, status in zip(*columns, strict=True)
                 if status in ACCEPTED and s is not None}  # fmt: skip
        eps = {name: between(*getattr(self, f"eps_{name}"), self.round, self.rounds)
               for name in ("pos", "neg", "pair")}  # fmt: skip
        rows = []
        for row in pairs.to_pylist():
            score = known.get(row["pair_id"])
            if score is None:
                continue
            other = known.get(f"{row['user_id']}|{row['partner_id']}")
            hard = self._hard(row["label"], score, other, eps)
            rows.append({**{c: row[c] for c in ("user_id", "item_id", "label")},
                         "score": int(score), "hard": hard})  # fmt: skip
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        return table, {"scored": len(rows), "hard": sum(r["hard"] for r in rows),
                       "not_scored": pairs.num_rows - len(rows),
                       **{f"eps_{k}": v for k, v in eps.items()}}  # fmt: skip

    def _hard(self, label: int, score: int, other: int | None, eps: dict[str, float]) -> bool:
        if not self.pairwise:
            return self.floor <= score < eps["pos"] if label else score > eps["neg"]
        if other is None:
            return False
        plus, minus = (score, other) if label else (other, score)
        return plus >= self.floor and plus - minus < eps["pair"]


SCHEMA = pa.schema([
    ("user_id", pa.string()), ("item_id", pa.string()), ("label", pa.int8()),
    ("score", pa.int32()), ("hard", pa.bool_()),
])  # fmt: skip
