"""Samples that training is sure about and gets wrong: what a profile is rewritten from (LLMHD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from .derivation import DerivedTable, Given
from .hard_candidates import recorded
from .profile_versions import answers_in, newest


@dataclass(frozen=True)
class ConfidentErrors(DerivedTable):
    """``user_id, profile, disliked, liked, shown``, one row per user with an error to learn from.

    A false positive is a training pair whose positive score was among the lowest in at least
    ``least`` recorded epochs, a false negative a sampled negative whose score was among the highest
    in as many; both with a score variance among the lowest ``variance_share``. ``disliked`` and
    ``liked`` hold the texts of at most ``most`` items of each kind, surest first; ``shown`` the ids
    of the false positives, which are training rows. Sources: the answers about users
    (oldest version first), those about items, the model with its ``TrainingStatistics``, the
    splits. A user without a profile, or whose items have no text, is left out.
    """

    rows: ClassVar[str] = "entities"

    least: int = 3
    variance_share: float = 0.5
    most: int = 3
    round: int = 2

    def __post_init__(self) -> None:
        if self.least < 1 or self.most < 1 or not 0 <= self.variance_share <= 1:
            raise ValueError(
                f"ConfidentErrors(least={self.least}, most={self.most}, variance_share="
                f"{self.variance_share}): at least 1 each, a share in [0, 1]"
            )

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        told = recorded(given.sources, type(self).__name__)
        items, versions = answers_in(given.sources)
        users = told["user_id"].to_pylist()
        found: dict[str, dict[str, list[tuple[float, str]]]] = {}
        for kind, side, count, item, sign in (
            ("disliked", "positive", "low_epochs", "item_id", 1.0),
            ("liked", "negative", "high_epochs", "negative_id", -1.0),
        ):
            spread = told[f"{side}_variance"].to_numpy()
            calm = np.argsort(spread, kind="stable")[: int(self.variance_share * len(spread))]
            sure = calm[told[count].to_numpy()[calm] >= self.least]
            mean, ids = told[f"{side}_mean"].to_numpy(), told[item].to_pylist()
            for n in sure:
                if ids[n] in items:
                    mine = found.setdefault(users[n], {"disliked": [], "liked": []})
                    mine[kind].append((sign * float(mean[n]), ids[n]))
        rows = []
        for user in sorted(found):
            profile, _ = newest(versions, user)
            if not profile:
                continue
            kept = {kind: [i for _, i in sorted(set(pairs))[: self.most]]
                    for kind, pairs in found[user].items()}  # fmt: skip
            rows.append({
                "user_id": user, "profile": profile,
                **{kind: [items[i] for i in ids] for kind, ids in kept.items()},
                "shown": kept["disliked"],
            })  # fmt: skip
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        counts = {k: sum(len(r[k]) for r in rows) for k in ("disliked", "liked")}
        return table, {"users": len(rows), "without_profile": len(found) - len(rows), **counts}


SCHEMA = pa.schema([
    ("user_id", pa.string()), ("profile", pa.string()), ("disliked", pa.list_(pa.string())),
    ("liked", pa.list_(pa.string())), ("shown", pa.list_(pa.string())),
])  # fmt: skip
